// Row kernels of the formats that encode. Compiled once per instruction set into a namespace of its own.
//
// Chunks of 32 elements, in plain loops that compilers vectorise (fit and round) and in vectors of the compiler's own kind
// (decode and counts). Each element goes through the same IEEE operations on every instruction set (no contraction, no
// approximate reciprocal), and reductions are integer maxima and sums, whose order does not matter: hence the same bytes
// everywhere. All of it has internal linkage and calls no inline function of a header (but intrinsics, which are always
// inlined), so that no code for a newer CPU can be merged into what an older one runs.
#include "quant/row_kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;

constexpr i64 kChunk = 32;

// ---- Scalars ----

float float_of(u32 bits) { return __builtin_bit_cast(float, bits); }
u32 bits_of(float x) { return __builtin_bit_cast(u32, x); }

/// To f16, nearest even (as to_f16 of base/scalar.h, for finite values and infinities).
u16 half_bits(float x) {
  const u32 u = bits_of(x), sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
  u32 h;
  if (magnitude > 0x7f800000u) {
    h = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {
    h = 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    h = bits_of(float_of(magnitude) + 0.5f) -
        0x3f000000u;  // the sum shifts a subnormal's mantissa into place, rounding once
  } else {
    h = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
  }
  return static_cast<u16>(sign | h);
}

float from_half(u16 h) {
  const u32 sign = (h & 0x8000u) << 16, rest = h & 0x7fffu;
  if (rest >= 0x7c00u) return float_of(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  if (rest >= 0x0400u) return float_of(sign | ((rest << 13) + 0x38000000u));
  const float subnormal = static_cast<float>(rest) * 0x1p-24f;
  return sign ? -subnormal : subnormal;
}

template <typename T>
T load(const u8* bytes) {
  T value;
  __builtin_memcpy(&value, bytes, sizeof(T));
  return value;
}

template <typename T>
void store(u8* bytes, T value) {
  __builtin_memcpy(bytes, &value, sizeof(T));
}

// ---- Values: f32, or bf16 as bits ----

float widen(float x) { return x; }
float widen(u16 x) { return float_of(static_cast<u32>(x) << 16); }

// Maxima as integers: magnitudes of floats order as their bits do.
struct F32Bits {
  using Signed = i32;
  static constexpr i32 kSign = static_cast<i32>(0x80000000u);
  static i32 of(float x) { return __builtin_bit_cast(i32, x); }
  static float value(i32 bits) { return __builtin_bit_cast(float, bits); }
};
struct Bf16Bits {
  using Signed = i16;
  static constexpr i16 kSign = static_cast<i16>(0x8000u);
  static i16 of(u16 x) { return static_cast<i16>(x); }
  static float value(i16 bits) { return widen(static_cast<u16>(bits)); }
};
template <typename T>
struct BitsOf {
  using type = F32Bits;
};
template <>
struct BitsOf<u16> {
  using type = Bf16Bits;
};

template <typename T>
float max_magnitude(const T* values, i64 n) {
  using B = typename BitsOf<T>::type;
  using S = typename B::Signed;
  S largest = 0;
  for (i64 i = 0; i < n; ++i) {
    const S magnitude = static_cast<S>(B::of(values[i]) & ~B::kSign);
    largest = magnitude > largest ? magnitude : largest;
  }
  return B::value(largest);
}

/// The first of the 32 values that has the largest magnitude; +0 if all are zeros.
template <typename T>
float first_largest(const T* values) {
  using B = typename BitsOf<T>::type;
  using S = typename B::Signed;
  S positive = 0, negative = 0;  // magnitudes; a value of the other sign has a negative pattern and never counts
  for (i64 i = 0; i < kChunk; ++i) {
    const S bits = B::of(values[i]), flipped = static_cast<S>(bits ^ B::kSign);
    positive = bits > positive ? bits : positive;
    negative = flipped > negative ? flipped : negative;
  }
  if (positive > negative) return B::value(positive);
  if (positive < negative) return -B::value(negative);
  if (positive == 0) return 0.0f;
  for (i64 i = 0; i < kChunk; ++i)
    if (static_cast<S>(B::of(values[i]) & ~B::kSign) == positive) return widen(values[i]);
  return 0.0f;
}

// ---- Rules: how a group is fitted, its codes rounded, its scale stored ----

template <int kBits_>
struct IntSym {
  static constexpr int kBits = kBits_;
  static constexpr i32 kLow = -(1 << (kBits - 1)), kHigh = -kLow - 1;  ///< Ends of the codes' range.
  static constexpr i64 kScaleBytes = 4;

  template <typename T>
  static float fit(const T* values, i64 n, u8* encoded) {
    constexpr float kSmallestNormal = 0x1p-126f;
    const float scale = max_magnitude(values, n) / (static_cast<float>(kHigh) + 0.5f);
    const float clamped = scale > kSmallestNormal ? scale : kSmallestNormal;
    store(encoded, clamped);
    return 1.0f / clamped;
  }
  /// Nearest even: adding 1.5 * 2^23 leaves the integer in the low bits; |x * inverse| <= 127.5 and a little.
  static i32 code(float x, float inverse) {
    constexpr float kShift = 12582912.0f;
    const i32 q = static_cast<i32>(bits_of(x * inverse + kShift) - bits_of(kShift));
    const i32 low = q < kLow ? kLow : q;
    return low > kHigh ? kHigh : low;
  }
  static float scale(const u8* encoded) { return load<float>(encoded); }
};

/// The inverse of a ggml scale; `overflow` where it is infinite, chosen so that every code becomes the one of q4_0.cpp and
/// q8_0.cpp.
float ggml_inverse(float d, float overflow) {
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

// ---- Chunks of 32 ----

template <typename Rule, typename T>
void encode_chunk(const T* values, float inverse, u8* codes) {
  i32 q[kChunk];
  for (i64 j = 0; j < kChunk; ++j) q[j] = Rule::code(widen(values[j]), inverse);
  if constexpr (Rule::kBits == 4) {
    for (i64 j = 0; j < 16; ++j) codes[j] = static_cast<u8>((q[j] + 8) | (q[j + 16] + 8) << 4);
  } else {
    for (i64 j = 0; j < kChunk; ++j) codes[j] = static_cast<u8>(q[j]);
  }
}

template <typename Rule>
constexpr i64 kChunkBytes = kChunk* Rule::kBits / 8;

// Sixteen bytes as a vector, which every instruction set has. Bytes are copied into locals, as in memory they may alias
// anything.
using Bytes = u8 __attribute__((vector_size(16)));

/// The codes of a chunk, each in a byte of its own: two's complement, or for 4 bits the code + 8.
struct Unpacked {
  Bytes halves[2];
};

template <typename Rule>
Unpacked unpack(const u8* encoded) {
  if constexpr (Rule::kBits == 4) {
    const Bytes packed = load<Bytes>(encoded);
    return {{packed & 15, packed >> 4}};
  } else {
    return {{load<Bytes>(encoded), load<Bytes>(encoded + 16)}};
  }
}

// Vectors of 32-bit lanes, as wide as the instruction set has them. Only the changes of width are spelled out: compilers
// take vector conversions between 8, 16 and 32 bits apart, lane by lane.
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = i32 __attribute__((vector_size(4 * kLanes)));
using Uints = u32 __attribute__((vector_size(4 * kLanes)));

#if defined(__AVX512F__)
constexpr u16 kAll = 0xffff;  // the unmasked intrinsics start from an undefined register, which GCC 12 warns about
Ints widen_codes(Bytes codes, int) {
  return reinterpret_cast<Ints>(_mm512_maskz_cvtepi8_epi32(kAll, reinterpret_cast<__m128i>(codes)));
}
void store_low_halves(Uints x, u16* out) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_maskz_cvtepi32_epi16(kAll, reinterpret_cast<__m512i>(x)));
}
#elif defined(__AVX2__)
Ints widen_codes(Bytes codes, int first) {
  const __m128i bytes = reinterpret_cast<__m128i>(codes);
  return reinterpret_cast<Ints>(_mm256_cvtepi8_epi32(first == 0 ? bytes : _mm_unpackhi_epi64(bytes, bytes)));
}
void store_low_halves(Uints x, u16* out) {  // values are below 2^16: nothing saturates
  const __m256i wide = reinterpret_cast<__m256i>(x);
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), words);
}
#else
/// Sign-extends codes first … first + kLanes.
Ints widen_codes(Bytes codes, int first) {
  Ints wide;
  for (int j = 0; j < kLanes; ++j) wide[j] = static_cast<i8>(codes[first + j]);
  return wide;
}
/// Stores the lower 16 bits of each lane.
void store_low_halves(Uints x, u16* out) {
  for (int j = 0; j < kLanes; ++j) out[j] = static_cast<u16>(x[j]);
}
#endif

void store_rounded(Floats x, float* out) { __builtin_memcpy(out, &x, sizeof(x)); }
/// To bf16, nearest even, NaN kept (as to_bf16 of base/scalar.h).
void store_rounded(Floats x, u16* out) {
  const Uints u = reinterpret_cast<Uints>(x);
  const Uints rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16, nan = u >> 16 | 0x40u;
  const Ints is_nan = reinterpret_cast<Ints>(u & 0x7fffffffu) > 0x7f800000;
  const Uints mask = reinterpret_cast<Uints>(is_nan);
  store_low_halves((nan & mask) | (rounded & ~mask), out);
}

template <typename Rule, typename T>
void decode_chunk(const u8* encoded, float scale, T* values) {
  const Unpacked codes = unpack<Rule>(encoded);
  constexpr int kOffset = Rule::kBits == 4 ? 8 : 0;
  for (int j = 0; j < kChunk; j += kLanes) {
    const Ints q = widen_codes(codes.halves[j / 16], j % 16) - kOffset;
    store_rounded(__builtin_convertvector(q, Floats) * scale, values + j);
  }
}

// Only 8-bit rows can end within a chunk; the rest is done in a chunk of its own, padded with zeros.
template <typename Rule, typename T>
void encode_row(const T* values, i64 cols, i64 group, u8* encoded) {
  for (i64 g = 0; g < cols; g += group) {
    const float inverse = Rule::fit(values + g, group, encoded);
    encoded += Rule::kScaleBytes;
    const i64 whole = group / kChunk * kChunk, rest = group - whole;
    for (i64 i = 0; i < whole; i += kChunk, encoded += kChunkBytes<Rule>)
      encode_chunk<Rule>(values + g + i, inverse, encoded);
    if (rest == 0) continue;
    T padded[kChunk] = {};
    u8 codes[kChunk];
    for (i64 i = 0; i < rest; ++i) padded[i] = values[g + whole + i];
    encode_chunk<Rule>(padded, inverse, codes);
    for (i64 i = 0; i < rest; ++i) encoded[i] = codes[i];
    encoded += rest;
  }
}

template <typename Rule, typename T>
void decode_row(const u8* encoded, i64 cols, i64 group, T* values) {
  for (i64 g = 0; g < cols; g += group) {
    const float scale = Rule::scale(encoded);
    encoded += Rule::kScaleBytes;
    const i64 whole = group / kChunk * kChunk, rest = group - whole;
    for (i64 i = 0; i < whole; i += kChunk, encoded += kChunkBytes<Rule>) decode_chunk<Rule>(encoded, scale, values + g + i);
    if (rest == 0) continue;
    u8 codes[kChunk] = {};
    T padded[kChunk];
    for (i64 i = 0; i < rest; ++i) codes[i] = encoded[i];
    decode_chunk<Rule>(codes, scale, padded);
    for (i64 i = 0; i < rest; ++i) values[g + whole + i] = padded[i];
    encoded += rest;
  }
}

// ---- Counts ----

/// Sums kept in 8 bits by lane and carried over before they could pass 255.
struct ByteSums {
  static constexpr int kPerFlush = 120;  ///< Chunks between flushes: each adds at most 2 to a lane.
  Bytes changed = {}, saturated = {};
  int chunks = 0;
  CodeCounts total{0, 0};

  void flush() {
    for (int j = 0; j < 16; ++j) {
      total.changed += changed[j];
      total.saturated += saturated[j];
    }
    changed = saturated = Bytes{};
    chunks = 0;
  }
};

template <typename Rule>
void count_chunk(const u8* encoded, const u8* earlier, ByteSums& sums) {
  constexpr int kOffset = Rule::kBits == 4 ? 8 : 0;
  constexpr u8 kLow = static_cast<u8>(Rule::kLow + kOffset), kHigh = static_cast<u8>(Rule::kHigh + kOffset);
  const Unpacked now = unpack<Rule>(encoded), before = unpack<Rule>(earlier);
  for (int half = 0; half < 2; ++half) {  // a comparison gives -1 where it holds
    sums.changed -= reinterpret_cast<Bytes>(now.halves[half] != before.halves[half]);
    sums.saturated -= reinterpret_cast<Bytes>((now.halves[half] == kLow) | (now.halves[half] == kHigh));
  }
  if (++sums.chunks == ByteSums::kPerFlush) sums.flush();
}

template <typename Rule>
CodeCounts count_row(const u8* now, const u8* before, i64 cols, i64 group) {
  ByteSums sums;
  for (i64 g = 0; g < cols; g += group) {
    now += Rule::kScaleBytes;
    before += Rule::kScaleBytes;
    const i64 whole = group / kChunk * kChunk, rest = group - whole;
    for (i64 i = 0; i < whole; i += kChunk, now += kChunkBytes<Rule>, before += kChunkBytes<Rule>)
      count_chunk<Rule>(now, before, sums);
    for (i64 i = 0; i < rest; ++i, ++now, ++before) {
      sums.total.changed += *now != *before;
      const i8 code = static_cast<i8>(*now);
      sums.total.saturated += code == Rule::kLow || code == Rule::kHigh;
    }
  }
  sums.flush();
  return sums.total;
}

template <typename Rule>
constexpr RowKernels kernels_of() {
  return {encode_row<Rule, float>, encode_row<Rule, u16>, decode_row<Rule, float>, decode_row<Rule, u16>, count_row<Rule>};
}

}  // namespace

extern const RowKernelTable kRowKernels;
const RowKernelTable kRowKernels = {
    {kernels_of<IntSym<4>>(), kernels_of<IntSym<8>>(), kernels_of<Q40>(), kernels_of<Q80>()}};

}  // namespace temper::quant::TEMPER_ISA_LEVEL
