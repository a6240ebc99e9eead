#include "quant/isa/blocks.h"

#include "quant/isa/groups.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

/// The inverse of a ggml scale; `overflow` where it is infinite, chosen so that every code becomes the one of q4_0.cpp and
/// q8_0.cpp.
inline float ggml_inverse(float d, float overflow) {
  const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
  return (bits_of(inverse) & 0x7fffffffu) == 0x7f800000u ? overflow : inverse;
}

struct Q40 {
  static constexpr int kBits = 4;
  static constexpr i32 kLow = -8, kHigh = 7;
  static constexpr i64 kScaleBytes = 2;

  template <typename T>
  static float fit(const T* values, i64, u8* encoded) {
    const float d = first_largest(values) / -8.0f;
    store(encoded, half_bits(d));
    return ggml_inverse(d, float_of(0x7fc00000u));
  }
  static i32 code(float x, float inverse) {
    const float t = x * inverse + 8.5f;
    const float positive = t > 0.0f ? t : 0.0f;  // NaN becomes 0
    const float clamped = positive < 15.0f ? positive : 15.0f;
    return static_cast<i32>(clamped) - 8;
  }
  static float scale(const u8* encoded) { return from_half(load<u16>(encoded)); }
};

struct Q80 {
  static constexpr int kBits = 8;
  static constexpr i32 kLow = -127, kHigh = 127;
  static constexpr i64 kScaleBytes = 2;

  template <typename T>
  static float fit(const T* values, i64, u8* encoded) {
    const float d = max_magnitude(values, kChunk) / 127.0f;
    store(encoded, half_bits(d));
    return ggml_inverse(d, 0.0f);
  }
  /// Half away from zero: (trunc(2m) + 1) / 2 of the magnitude m, where doubling is exact.
  static i32 code(float x, float inverse) {
    const u32 bits = bits_of(x * inverse);
    const float doubled = 2.0f * float_of(bits & 0x7fffffffu);
    const float clamped = doubled < 254.0f ? doubled : 254.0f;
    const i32 rounded = (static_cast<i32>(clamped) + 1) >> 1;
    const i32 sign = static_cast<i32>(bits) >> 31;
    return (rounded ^ sign) - sign;
  }
  static float scale(const u8* encoded) { return from_half(load<u16>(encoded)); }
};

// ---- Codes 0 … with a scale and perhaps a minimum ----

/// 32 codes, signed bytes, whose values are code * scale + bias. A format without bias has -0, which changes no sum.
struct Affine {
  Bytes codes[2];
  float scale, bias;
};

/// The plain rule: codes trunc((x - origin) * inverse + half), within 0 … high; NaN gives 0.
template <typename T>
void round_up_halves(const T* values, float origin, float d, float half, float high, u8* codes) {
  const float inverse = ggml_inverse(d, float_of(0x7fc00000u));
  i32 q[kChunk];  // wide first: narrowing within the loop makes compilers narrow the comparisons' masks, too
  for (i64 j = 0; j < kChunk; ++j) {
    const float t = (widen(values[j]) - origin) * inverse + half;
    const float positive = t > 0.0f ? t : 0.0f, clamped = positive < high ? positive : high;
    q[j] = static_cast<i32>(clamped);
  }
  for (i64 j = 0; j < kChunk; ++j) codes[j] = static_cast<u8>(q[j]);
}

/// Bit 4 of 32 codes.
inline u32 fifth_bits_of(const u8* codes) {
#if defined(__AVX2__)
  const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  return static_cast<u32>(_mm256_movemask_epi8(_mm256_slli_epi16(all, 3)));
#else
  u32 bits = 0;
  for (int j = 0; j < kChunk; ++j) bits |= static_cast<u32>(codes[j] >> 4) << j;
  return bits;
#endif
}

/// 16 where a bit of the two bytes is set, else 0; bit j of them in byte j.
#if defined(__AVX512BW__)
inline Bytes fifth_bits(const u8* bits) { return reinterpret_cast<Bytes>(_mm_maskz_set1_epi8(load<u16>(bits), 16)); }
#else
inline Bytes fifth_bits(const u8* bits) {
  constexpr Bytes kBit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const u8 a = bits[0], b = bits[1];
  const Bytes spread = {a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b};
  return reinterpret_cast<Bytes>((spread & kBit) != 0) & 16;
}
#endif

template <int kBits>
struct WithMinimum {
  static constexpr int kHigh = (1 << kBits) - 1, kQs = kBits == 4 ? 4 : 8, kBytes = kQs + 16;
  static constexpr u8 kCodes[2] = {0, kHigh};

  template <typename T>
  static void encode(const T* values, u8* block) {
    float low, high;
    extremes(values, low, high);
    const float d = (high - low) / static_cast<float>(kHigh);
    store(block, half_bits(d));
    store(block + 2, half_bits(low));
    round(values, d, low, block);
  }
  static void reround(const float* values, float d, u8* block) { round(values, d, from_half(load<u16>(block + 2)), block); }
  static Affine load_block(const u8* block) {
    const Bytes packed = load<Bytes>(block + kQs);
    Affine affine = {{packed & 15, packed >> 4}, from_half(load<u16>(block)), from_half(load<u16>(block + 2))};
    if constexpr (kBits == 5) {
      affine.codes[0] |= fifth_bits(block + 4);
      affine.codes[1] |= fifth_bits(block + 6);
    }
    return affine;
  }

 private:
  template <typename T>
  static void round(const T* values, float d, float low, u8* block) {
    u8 codes[kChunk];
    round_up_halves(values, low, d, 0.5f, static_cast<float>(kHigh), codes);
    if constexpr (kBits == 5) store(block + 4, fifth_bits_of(codes));
    put_nibbles<16>(codes, block + kQs);
  }
};

struct Q50 {
  static constexpr int kBytes = 22;
  static constexpr u8 kCodes[2] = {static_cast<u8>(-16), 15};

  template <typename T>
  static void encode(const T* values, u8* block) {
    const float d = first_largest(values) / -16.0f;
    store(block, half_bits(d));
    reround(values, d, block);
  }
  template <typename T>
  static void reround(const T* values, float d, u8* block) {
    u8 codes[kChunk];
    round_up_halves(values, 0.0f, d, 16.5f, 31.0f, codes);
    store(block + 2, fifth_bits_of(codes));
    put_nibbles<16>(codes, block + 6);
  }
  static Affine load_block(const u8* block) {
    const Bytes packed = load<Bytes>(block + 6);
    return {{((packed & 15) | fifth_bits(block + 2)) - 16, ((packed >> 4) | fifth_bits(block + 4)) - 16},
            from_half(load<u16>(block)),
            -0.0f};
  }
};

template <typename Format, typename T>
void encode_blocks(const T* values, i64 cols, i64, u8* encoded) {
  for (i64 i = 0; i < cols; i += kChunk, encoded += Format::kBytes) Format::encode(values + i, encoded);
}

template <typename Format, typename T>
void decode_blocks(const u8* encoded, i64 cols, i64, T* values) {
  for (i64 i = 0; i < cols; i += kChunk, encoded += Format::kBytes) {
    const Affine block = Format::load_block(encoded);
    decode_affine(block.codes[0], block.scale, block.bias, values + i);
    decode_affine(block.codes[1], block.scale, block.bias, values + i + 16);
  }
}

template <typename Format>
CodeCounts count_blocks(const u8* encoded, const u8* earlier, i64 cols, i64) {
  ByteSums sums;
  for (i64 i = 0; i < cols; i += kChunk, encoded += Format::kBytes, earlier += Format::kBytes)
    count_codes(Format::load_block(encoded).codes, Format::load_block(earlier).codes, Format::kCodes[0], Format::kCodes[1],
                sums);
  sums.flush();
  return sums.total;
}

/// q4_0 and q8_0 as blocks, for rounding again.
template <typename Rule, int kBlockBytes>
struct Again {
  static constexpr int kBytes = kBlockBytes;
  static void reround(const float* values, float d, u8* block) {
    const float overflow = Rule::kBits == 4 ? float_of(0x7fc00000u) : 0.0f;
    encode_chunk<Rule>(values, d == d ? ggml_inverse(d, overflow) : overflow, block + Rule::kScaleBytes);
  }
};

/// Rounds with the stored scale (and minimum), unless no code changes a value.
template <typename Format>
void reround_blocks(const float* values, i64 cols, u8* encoded) {
  for (i64 i = 0; i < cols; i += kChunk, encoded += Format::kBytes)
    if (const float d = from_half(load<u16>(encoded)); d != 0.0f) Format::reround(values + i, d, encoded);
}

template <typename Format>
constexpr RowKernels blocks_of() {
  return {encode_blocks<Format, float>, encode_blocks<Format, u16>, decode_blocks<Format, float>, decode_blocks<Format, u16>,
          count_blocks<Format>};
}

}  // namespace

const RowKernels kQ40Rows = kernels_of<Q40>();
const RowKernels kQ80Rows = kernels_of<Q80>();
const RowKernels kQ41Rows = blocks_of<WithMinimum<4>>();
const RowKernels kQ50Rows = blocks_of<Q50>();
const RowKernels kQ51Rows = blocks_of<WithMinimum<5>>();
const KeptKernels kQ40Kept = {reround_blocks<Again<Q40, 18>>};
const KeptKernels kQ80Kept = {reround_blocks<Again<Q80, 34>>};
const KeptKernels kQ41Kept = {reround_blocks<WithMinimum<4>>};
const KeptKernels kQ50Kept = {reround_blocks<Q50>};
const KeptKernels kQ51Kept = {reround_blocks<WithMinimum<5>>};

}  // namespace temper::quant::TEMPER_ISA_LEVEL
