// The GGUF formats of superblocks of 256 elements whose sub-blocks have small integer scales: layouts, and how parameters
// and codes are found. Written once, for the definition (k_quants.cpp) and the kernels (isa/k_encode.cpp); internal linkage:
// see bits.h.
//
//     q2_k   | u8 scales[16] | u8 qs[64] | f16 d | f16 dmin |                84 bytes   x' = (d * sc) * q - dmin * mn
//     q4_k   | f16 d | f16 dmin | u8 scales[12] |            u8 qs[128] |  144 bytes   the same
//     q5_k   | f16 d | f16 dmin | u8 scales[12] | u8 qh[32] | u8 qs[128] |  176 bytes   the same
//     q3_k   | u8 hmask[32] | u8 qs[64] | u8 scales[12] | f16 d |            110 bytes   x' = d * sc * (q - 4)
//     q6_k   | u8 ql[128] | u8 qh[64] | i8 scales[16] | f16 d |             210 bytes   x' = d * sc * (q - 32)
//
// q4_k, q5_k: 8 sub-blocks of 32, each with a 6-bit scale and minimum; the others have 16 sub-blocks of 16, q2_k with 4 bits
// of scale (low) and of minimum. Two-bit codes: byte l of half a superblock (128 elements) holds elements l, l + 32, l + 64
// and l + 96; bit s of hmask byte l is bit 2 of element l of the s-th 32. Nibbles: 32 bytes of qs hold 64 elements, low
// nibbles the first 32, high ones the next. qh byte l holds bit 4 of element l of each sub-block s, as bit s. q6_k: half a
// superblock, four quarters of 32, takes 64 bytes of ql and 32 of qh: quarters 0 and 1 are the low nibbles of ql, 2 and 3
// the high ones; qh holds bits 4 and 5, two bits per quarter.
#pragma once

#include "quant/search.h"

namespace temper::quant {
namespace {

constexpr int kSuper = 256;

/// What the search finds for the sub-blocks of a superblock; see AffineFit and SymmetricFit. `weight` is the sum of the
/// weights.
template <int kSubs>
struct SubFits {
  float scale[kSubs], minimum[kSubs], step[kSubs], origin[kSubs], weight[kSubs];
};
template <typename V>
struct SubFit {
  V scale{}, minimum{}, step{}, origin{}, weight{};

  void set(const SymmetricFit<V>& fit) {
    scale = fit.scale;
    step = fit.step;
  }
};

/// Parameters of a superblock. Codes are the nearest ones to (x + dmin * minimum) / (d * scale), all as stored. Where d *
/// scale is zero, codes change no value; they are then those of the search, as in ggml: nearest(step * (x - origin)), or the
/// lowest if `step` is infinite.
template <int kSubs_>
struct KParams {
  static constexpr int kSubs = kSubs_;
  float d, dmin;
  float scale[kSubs], minimum[kSubs];
  float step[kSubs], origin[kSubs];
};

template <int kElements, typename V>
V sum_of(const V* x) {
  V sum{};
  for (int i = 0; i < kElements; ++i) sum += x[i];
  return sum;
}

/// Mean square of a superblock, the weight that importance gives to elements near zero.
inline float mean_square(const float* x) {
  float sum = 0;
  for (int i = 0; i < kSuper; ++i) sum += x[i] * x[i];
  return sum / kSuper;
}

// ---- Scales and minima, codes in 0 … levels ----

/// A superblock's d and dmin with the stored scales and minima, at most `levels`.
template <int kSubs>
KParams<kSubs> store_affine(const SubFits<kSubs>& subs, int levels, bool weighted) {
  KParams<kSubs> params{};
  const auto share = [&](const float* values, float* codes) {
    if (weighted) return from_half(half_bits(fit_levels(values, subs.weight, kSubs, levels, codes)));
    float largest = 0;
    for (int s = 0; s < kSubs; ++s) largest = values[s] > largest ? values[s] : largest;
    const float inverse = largest > 0 ? static_cast<float>(levels) / largest : 0.0f;
    for (int s = 0; s < kSubs; ++s) codes[s] = nearest<float>(inverse * values[s], 0, levels);
    return from_half(half_bits(largest / static_cast<float>(levels)));
  };
  params.d = share(subs.scale, params.scale);
  params.dmin = share(subs.minimum, params.minimum);
  for (int s = 0; s < kSubs; ++s) {
    params.step[s] = subs.step[s];
    params.origin[s] = subs.origin[s];
  }
  return params;
}

/// Search and codes of a sub-block with a minimum.
template <int kSubs_, int kBits>
struct AffineFormat {
  static constexpr int kSubs = kSubs_, kElements = kSuper / kSubs, kLow = 0, kHigh = (1 << kBits) - 1;
  static constexpr bool kDescent = false;
  using Params = KParams<kSubs>;

  template <typename V>
  static SubFit<V> search(const V* x, const V* importance, V energy, const AffineSearch& plain) {
    constexpr AffineSearch kWeighted{kHigh, -0.9f, 0.05f, 36};
    V weights[kElements];
    if (importance) {
      weigh<kElements>(x, importance, energy, weights);
    } else if (plain.absolute) {
      for (int i = 0; i < kElements; ++i) weights[i] = magnitude(x[i]);
    } else {
      V sum{};
      for (int i = 0; i < kElements; ++i) sum += x[i] * x[i];
      const V rms = root<V>(sum / static_cast<float>(kElements));
      for (int i = 0; i < kElements; ++i) weights[i] = rms + magnitude(x[i]);
    }
    const AffineFit<V> fit = fit_affine<kElements>(x, weights, importance ? kWeighted : plain);
    return {fit.scale, fit.minimum, fit.step, fit.origin, sum_of<kElements>(weights)};
  }
};

/// Six-bit scales and minima of 8 sub-blocks in 12 bytes. Sub-blocks 0–3 use the low six bits of bytes s and s + 4; the
/// others have their low four bits in byte s + 4 and their upper two in the top of bytes s - 4 and s.
inline void put_six_bits(const KParams<8>& params, u8* bytes) {
  for (int s = 0; s < 4; ++s) {
    const auto scale = static_cast<u32>(params.scale[s + 4]), minimum = static_cast<u32>(params.minimum[s + 4]);
    bytes[s] = static_cast<u8>(static_cast<u32>(params.scale[s]) | scale >> 4 << 6);
    bytes[s + 4] = static_cast<u8>(static_cast<u32>(params.minimum[s]) | minimum >> 4 << 6);
    bytes[s + 8] = static_cast<u8>((scale & 15) | (minimum & 15) << 4);
  }
}

inline void get_six_bits(const u8* bytes, KParams<8>& params) {
  for (int s = 0; s < 4; ++s) {
    params.scale[s] = static_cast<float>(bytes[s] & 63);
    params.minimum[s] = static_cast<float>(bytes[s + 4] & 63);
    params.scale[s + 4] = static_cast<float>((bytes[s + 8] & 15) | bytes[s] >> 6 << 4);
    params.minimum[s + 4] = static_cast<float>(bytes[s + 8] >> 4 | bytes[s + 4] >> 6 << 4);
  }
}

/// What q4_k and q5_k blocks start with.
template <typename Block>
void put_head(const KParams<8>& params, Block& block) {
  block.d = half_bits(params.d);
  block.dmin = half_bits(params.dmin);
  put_six_bits(params, block.scales);
}

template <typename Block>
void get_head(const Block& block, KParams<8>& params) {
  params.d = from_half(block.d);
  params.dmin = from_half(block.dmin);
  get_six_bits(block.scales, params);
}

inline void put_nibbles(const u8* codes, u8* qs) {
  for (int pair = 0; pair < 4; ++pair)
    for (int l = 0; l < 32; ++l)
      qs[pair * 32 + l] = static_cast<u8>((codes[pair * 64 + l] & 15) | codes[pair * 64 + 32 + l] << 4);
}

inline void get_nibbles(const u8* qs, u8* codes) {
  for (int pair = 0; pair < 4; ++pair)
    for (int l = 0; l < 32; ++l) {
      codes[pair * 64 + l] = qs[pair * 32 + l] & 15;
      codes[pair * 64 + 32 + l] = qs[pair * 32 + l] >> 4;
    }
}

inline void put_pairs_of_bits(const u8* codes, u8* qs) {
  for (int half = 0; half < 2; ++half)
    for (int l = 0; l < 32; ++l) {
      const u8* q = codes + half * 128 + l;
      qs[half * 32 + l] = static_cast<u8>((q[0] & 3) | (q[32] & 3) << 2 | (q[64] & 3) << 4 | (q[96] & 3) << 6);
    }
}

inline void get_pairs_of_bits(const u8* qs, u8* codes) {
  for (int quarter = 0; quarter < 8; ++quarter)
    for (int l = 0; l < 32; ++l) codes[quarter * 32 + l] = qs[quarter / 4 * 32 + l] >> quarter % 4 * 2 & 3;
}

struct Q4K : AffineFormat<8, 4> {
  struct Block {
    u16 d, dmin;
    u8 scales[12], qs[128];
  };
  static_assert(sizeof(Block) == 144);
  static constexpr const char* kName = "q4_k";
  static constexpr float kEnergy = 2;

  template <typename V>
  static SubFit<V> fit(const V* x, const V* importance, V energy) {
    return search<V>(x, importance, energy, {kHigh, -1.0f, 0.1f, 20});
  }
  static Params finish(const SubFits<8>& subs, bool weighted) { return store_affine(subs, 63, weighted); }
  static void put(const Params& params, const u8* codes, Block& block) {
    put_head(params, block);
    put_nibbles(codes, block.qs);
  }
  static void get(const Block& block, Params& params, u8* codes) {
    get_head(block, params);
    get_nibbles(block.qs, codes);
  }
};

struct Q5K : AffineFormat<8, 5> {
  struct Block {
    u16 d, dmin;
    u8 scales[12], qh[32], qs[128];
  };
  static_assert(sizeof(Block) == 176);
  static constexpr const char* kName = "q5_k";
  static constexpr float kEnergy = 2;

  template <typename V>
  static SubFit<V> fit(const V* x, const V* importance, V energy) {
    return search<V>(x, importance, energy, {kHigh, -0.5f, 0.1f, 15});
  }
  static Params finish(const SubFits<8>& subs, bool weighted) { return store_affine(subs, 63, weighted); }
  static void put(const Params& params, const u8* codes, Block& block) {
    put_head(params, block);
    put_nibbles(codes, block.qs);
    for (int l = 0; l < 32; ++l) {
      u32 high = 0;
      for (int s = 0; s < 8; ++s) high |= static_cast<u32>(codes[s * 32 + l] >> 4) << s;
      block.qh[l] = static_cast<u8>(high);
    }
  }
  static void get(const Block& block, Params& params, u8* codes) {
    get_head(block, params);
    get_nibbles(block.qs, codes);
    for (int s = 0; s < 8; ++s)
      for (int l = 0; l < 32; ++l) codes[s * 32 + l] = static_cast<u8>(codes[s * 32 + l] | (block.qh[l] >> s & 1) << 4);
  }
};

struct Q2K : AffineFormat<16, 2> {
  struct Block {
    u8 scales[16], qs[64];
    u16 d, dmin;
  };
  static_assert(sizeof(Block) == 84);
  static constexpr const char* kName = "q2_k";
  static constexpr float kEnergy = 1;

  template <typename V>
  static SubFit<V> fit(const V* x, const V* importance, V energy) {
    return search<V>(x, importance, energy, {kHigh, -0.5f, 0.1f, 15, true});
  }
  static Params finish(const SubFits<16>& subs, bool weighted) { return store_affine(subs, 15, weighted); }
  static void put(const Params& params, const u8* codes, Block& block) {
    for (int s = 0; s < 16; ++s)
      block.scales[s] = static_cast<u8>(static_cast<u32>(params.scale[s]) | static_cast<u32>(params.minimum[s]) << 4);
    put_pairs_of_bits(codes, block.qs);
    block.d = half_bits(params.d);
    block.dmin = half_bits(params.dmin);
  }
  static void get(const Block& block, Params& params, u8* codes) {
    params.d = from_half(block.d);
    params.dmin = from_half(block.dmin);
    for (int s = 0; s < 16; ++s) {
      params.scale[s] = static_cast<float>(block.scales[s] & 15);
      params.minimum[s] = static_cast<float>(block.scales[s] >> 4);
    }
    get_pairs_of_bits(block.qs, codes);
  }
};

// ---- Signed scales, codes in -half … half - 1 ----

template <int kHalf>
struct SymmetricFormat {
  static constexpr int kSubs = 16, kElements = 16, kLow = -kHalf, kHigh = kHalf - 1;
  using Params = KParams<16>;

  /// The stored scales -largest … largest - 1, of which the first largest magnitude takes -largest.
  static Params share(const SubFits<16>& subs, int largest) {
    Params params = with_steps(subs);
    float top = 0;
    for (const float scale : subs.scale) top = magnitude(scale) > magnitude(top) ? scale : top;
    const float inverse = -static_cast<float>(largest) / top;
    params.d = from_half(half_bits(1.0f / inverse));
    for (int s = 0; s < 16; ++s) params.scale[s] = nearest<float>(inverse * subs.scale[s], -largest, largest - 1);
    return params;
  }

  static Params with_steps(const SubFits<16>& subs) {
    Params params{};
    for (int s = 0; s < 16; ++s) params.step[s] = subs.step[s];
    return params;
  }
};

struct Q3K : SymmetricFormat<4> {
  struct Block {
    u8 hmask[32], qs[64], scales[12];
    u16 d;
  };
  static_assert(sizeof(Block) == 110);
  static constexpr const char* kName = "q3_k";
  static constexpr float kEnergy = 2;
  static constexpr bool kDescent = true;  ///< Without importance no single step gives the codes: step is NaN.

  template <typename V>
  static SubFit<V> fit(const V* x, const V* importance, V energy) {
    SubFit<V> sub;
    V scratch[kElements];
    if (!importance) {
      sub.scale = fit_by_descent<kElements>(x, 4, scratch);
      sub.step = splat<V>(__builtin_nanf(""));
      return sub;
    }
    weigh<kElements>(x, importance, energy, scratch);
    sub.set(fit_symmetric<kElements>(x, scratch, 4));
    sub.weight = sum_of<kElements>(scratch);
    return sub;
  }
  static Params finish(const SubFits<16>& subs, bool weighted) {
    Params params = with_steps(subs);
    bool zeros = true;
    for (const float scale : subs.scale) zeros = zeros && scale == 0;
    for (float& scale : params.scale) scale = -32;
    if (weighted) {
      const SymmetricFit<float> shared = fit_symmetric<16>(subs.scale, subs.weight, 32);
      params.d = from_half(half_bits(shared.scale));
      if (shared.step - shared.step == 0)  // finite
        for (int s = 0; s < 16; ++s) params.scale[s] = nearest<float>(shared.step * subs.scale[s], -32, 31);
    } else if (!zeros) {
      params = share(subs, 32);
    }
    return params;
  }
  static void put(const Params& params, const u8* codes, Block& block) {
    for (u8& byte : block.scales) byte = 0;
    for (int s = 0; s < 16; ++s) {
      const auto scale = static_cast<u32>(params.scale[s] + 32);
      block.scales[s % 8] = static_cast<u8>(block.scales[s % 8] | (scale & 15) << s / 8 * 4);
      block.scales[8 + s % 4] = static_cast<u8>(block.scales[8 + s % 4] | scale >> 4 << s / 4 * 2);
    }
    put_pairs_of_bits(codes, block.qs);
    for (int l = 0; l < 32; ++l) {
      u32 high = 0;
      for (int s = 0; s < 8; ++s) high |= static_cast<u32>(codes[s * 32 + l] >> 2) << s;
      block.hmask[l] = static_cast<u8>(high);
    }
    block.d = half_bits(params.d);
  }
  static void get(const Block& block, Params& params, u8* codes) {
    params.d = from_half(block.d);
    for (int s = 0; s < 16; ++s) {
      const int low = block.scales[s % 8] >> s / 8 * 4 & 15, high = block.scales[8 + s % 4] >> s / 4 * 2 & 3;
      params.scale[s] = static_cast<float>((low | high << 4) - 32);
    }
    get_pairs_of_bits(block.qs, codes);
    for (int s = 0; s < 8; ++s)
      for (int l = 0; l < 32; ++l) codes[s * 32 + l] = static_cast<u8>(codes[s * 32 + l] | (block.hmask[l] >> s & 1) << 2);
  }
};

struct Q6K : SymmetricFormat<32> {
  struct Block {
    u8 ql[128], qh[64];
    i8 scales[16];
    u16 d;
  };
  static_assert(sizeof(Block) == 210);
  static constexpr const char* kName = "q6_k";
  static constexpr float kEnergy = 0;  ///< Importance is the weight.
  static constexpr bool kDescent = false;

  template <typename V>
  static SubFit<V> fit(const V* x, const V* importance, V) {
    V squares[kElements];
    for (int i = 0; i < kElements; ++i) squares[i] = x[i] * x[i];
    SubFit<V> sub;
    sub.set(fit_symmetric<kElements>(x, importance ? importance : squares, 32));
    return sub;
  }
  static Params finish(const SubFits<16>& subs, bool) {
    for (const float scale : subs.scale)
      if (magnitude(scale) >= kNothing) return share(subs, 128);
    Params params{};  // nothing: every byte is zero
    for (float& step : params.step) step = __builtin_inff();
    return params;
  }
  static void put(const Params& params, const u8* codes, Block& block) {
    for (int half = 0; half < 2; ++half)
      for (int l = 0; l < 32; ++l) {
        const u8* q = codes + half * 128 + l;
        u8* low = block.ql + half * 64 + l;
        low[0] = static_cast<u8>((q[0] & 15) | q[64] << 4);
        low[32] = static_cast<u8>((q[32] & 15) | q[96] << 4);
        block.qh[half * 32 + l] = static_cast<u8>(q[0] >> 4 | q[32] >> 4 << 2 | q[64] >> 4 << 4 | q[96] >> 4 << 6);
      }
    for (int s = 0; s < 16; ++s) block.scales[s] = static_cast<i8>(params.scale[s]);
    block.d = half_bits(params.d);
  }
  static void get(const Block& block, Params& params, u8* codes) {
    params.d = from_half(block.d);
    for (int s = 0; s < 16; ++s) params.scale[s] = static_cast<float>(block.scales[s]);
    for (int quarter = 0; quarter < 8; ++quarter) {
      const u8 *low = block.ql + quarter / 4 * 64 + quarter % 2 * 32, *high = block.qh + quarter / 4 * 32;
      const int low_shift = quarter % 4 / 2 * 4, high_shift = quarter % 4 * 2;
      for (int l = 0; l < 32; ++l)
        codes[quarter * 32 + l] = static_cast<u8>((low[l] >> low_shift & 15) | (high[l] >> high_shift & 3) << 4);
    }
  }
};

// ---- Codes ----

/// The codes of a sub-block, counted from the lowest one.
template <typename Format>
void nearest_codes(const float* x, float scale, float minimum, u8* codes) {
  i32 q[Format::kElements];  // wide first, for the vectoriser
  for (int i = 0; i < Format::kElements; ++i)
    q[i] = static_cast<i32>(nearest<float>((x[i] + minimum) / scale, Format::kLow, Format::kHigh)) - Format::kLow;
  for (int i = 0; i < Format::kElements; ++i) codes[i] = static_cast<u8>(q[i]);
}

/// The 256 codes, counted from the lowest one.
template <typename Format>
void round_codes(const float* x, const typename Format::Params& params, u8* codes) {
  constexpr int kElements = Format::kElements;
  for (int s = 0; s < Format::kSubs; ++s, x += kElements, codes += kElements) {
    const float scale = params.d * params.scale[s], minimum = params.dmin * params.minimum[s], step = params.step[s];
    if (scale != 0) {
      nearest_codes<Format>(x, scale, minimum, codes);
    } else if (Format::kDescent && step != step) {
      float found[kElements];
      fit_by_descent<kElements>(x, -Format::kLow, found);
      for (int i = 0; i < kElements; ++i) codes[i] = static_cast<u8>(found[i]);
    } else {
      for (int i = 0; i < kElements; ++i)
        codes[i] = static_cast<u8>(searched_code(x[i], step, params.origin[s], Format::kLow, Format::kHigh));
    }
  }
}

/// The codes of x with stored parameters; those of sub-blocks whose scale is zero change no value and stay.
template <typename Format>
void reround_codes(const float* x, const typename Format::Params& params, u8* codes) {
  constexpr int kElements = Format::kElements;
  for (int s = 0; s < Format::kSubs; ++s, x += kElements, codes += kElements) {
    const float scale = params.d * params.scale[s], minimum = params.dmin * params.minimum[s];
    if (scale != 0) nearest_codes<Format>(x, scale, minimum, codes);
  }
}

}  // namespace
}  // namespace temper::quant
