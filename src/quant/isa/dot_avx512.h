// Rows of number formats decoded in registers and multiplied at once. A chunk of 32 weights becomes an operand, rounded to
// bf16 where x is, by the same operations as decode's: the products' operands are decode's values to the bit.
//
// A code of at most five bits stands for one of 16 or 32 values, which are computed once per group of weights and looked up
// by a permutation that takes the codes as indices; wider codes are converted and scaled.
#pragma once

#include <immintrin.h>

#include "quant/dot.h"
#include "quant/isa/four_bit_values.h"

// The unmasked intrinsics start from an undefined register, which GCC 12 warns about.
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

using i64 = std::int64_t;
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;

constexpr i64 kChunk = 32;

#define TEMPER_INLINE inline __attribute__((always_inline))
#define TEMPER_FLAT __attribute__((always_inline))

template <typename T>
TEMPER_INLINE T load(const u8* bytes) {
  T value;
  __builtin_memcpy(&value, bytes, sizeof(T));
  return value;
}
TEMPER_INLINE __m128i load_16(const u8* bytes) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)); }
TEMPER_INLINE __m256i load_32(const u8* bytes) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)); }

/// An f16 in every lane.
TEMPER_INLINE __m512 half_lanes(const u8* f16) {
  return _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<short>(load<u16>(f16))));
}

// ---- Operands: 32 weights in the type of x -------------------------------------------------------------------------------

struct F32Operand {
  using Element = float;
  struct Group {
    __m512 low, high;
  };
  struct Table16 {
    __m512 values;
  };
  struct Table32 {
    __m512 low, high;
  };
  using Sum = __m512;

  static TEMPER_INLINE Group of(__m512 low, __m512 high) { return {low, high}; }
  static TEMPER_INLINE Table16 table(__m512 values) { return {values}; }
  static TEMPER_INLINE Table32 table(__m512 low, __m512 high) { return {low, high}; }
  /// `index`: 32 words, of which the lowest four (five) bits count.
  static TEMPER_INLINE Group look_up(const Table16& t, __m512i index) {
    return {_mm512_permutexvar_ps(low_half(index), t.values), _mm512_permutexvar_ps(high_half(index), t.values)};
  }
  static TEMPER_INLINE Group look_up(const Table32& t, __m512i index) {
    return {_mm512_permutex2var_ps(t.low, low_half(index), t.high), _mm512_permutex2var_ps(t.low, high_half(index), t.high)};
  }
  static TEMPER_INLINE Sum multiply_add(const Group& w, const float* x, Sum sum) {
    return _mm512_fmadd_ps(w.high, _mm512_loadu_ps(x + 16), _mm512_fmadd_ps(w.low, _mm512_loadu_ps(x), sum));
  }
  /// The first n < 32 elements of x count.
  static TEMPER_INLINE Sum multiply_add_part(const Group& w, const float* x, i64 n, Sum sum) {
    const u32 mask = (1u << n) - 1u;
    const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), x);
    const __m512 high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), x + 16);
    return _mm512_fmadd_ps(w.high, high, _mm512_fmadd_ps(w.low, low, sum));
  }

 private:
  static TEMPER_INLINE __m512i low_half(__m512i words) { return _mm512_cvtepu16_epi32(_mm512_castsi512_si256(words)); }
  static TEMPER_INLINE __m512i high_half(__m512i words) {
    return _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(words, 1));
  }
};

#if defined(__AVX512BF16__)
struct Bf16Operand {
  using Element = u16;
  using Group = __m512i;
  struct Table16 {
    __m512i values;  // twice the same 16: a fifth bit of an index changes nothing
  };
  struct Table32 {
    __m512i values;
  };
  using Sum = __m512;

  static TEMPER_INLINE Group of(__m512 low, __m512 high) { return bits(_mm512_cvtne2ps_pbh(high, low)); }
  static TEMPER_INLINE Table16 table(__m512 values) { return {of(values, values)}; }
  static TEMPER_INLINE Table32 table(__m512 low, __m512 high) { return {of(low, high)}; }
  static TEMPER_INLINE Group look_up(const Table16& t, __m512i index) { return _mm512_permutexvar_epi16(index, t.values); }
  static TEMPER_INLINE Group look_up(const Table32& t, __m512i index) { return _mm512_permutexvar_epi16(index, t.values); }
  static TEMPER_INLINE Sum multiply_add(Group w, const u16* x, Sum sum) { return products(w, _mm512_loadu_si512(x), sum); }
  static TEMPER_INLINE Sum multiply_add_part(Group w, const u16* x, i64 n, Sum sum) {
    return products(w, _mm512_maskz_loadu_epi16((1u << n) - 1u, x), sum);
  }

 private:
  static TEMPER_INLINE __m512i bits(__m512bh x) { return reinterpret_cast<__m512i>(x); }
  static TEMPER_INLINE Sum products(Group w, __m512i x, Sum sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
  }
};
#endif

// ---- Formats: a block of kChunks · 32 weights, handed out chunk by chunk -------------------------------------------------

constexpr float kCounts[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                               16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
TEMPER_INLINE __m512 low_counts() { return _mm512_loadu_ps(kCounts); }
TEMPER_INLINE __m512 high_counts() { return _mm512_loadu_ps(kCounts + 16); }
TEMPER_INLINE __m512 shifted(__m512 counts, float by) { return _mm512_sub_ps(counts, _mm512_set1_ps(by)); }

/// The 32 nibbles of 16 bytes as words: the low ones first. Bits from the fourth on are left over.
TEMPER_INLINE __m512i nibbles(const u8* bytes) {
  const __m256i words = _mm256_cvtepu8_epi16(load_16(bytes));
  return _mm512_inserti64x4(_mm512_castsi256_si512(words), _mm256_srli_epi16(words, 4), 1);
}
/// Nibbles with bit j of `fifth` as bit 4 of word j.
TEMPER_INLINE __m512i five_bits(__m512i nibbles, __mmask32 fifth) {
  const __m512i low = _mm512_and_si512(nibbles, _mm512_set1_epi16(15));
  return _mm512_mask_add_epi16(low, fifth, low, _mm512_set1_epi16(16));
}
/// 32 signed bytes times a scale.
template <typename O>
TEMPER_INLINE typename O::Group scaled_bytes(__m128i low, __m128i high, __m512 low_scale, __m512 high_scale) {
  return O::of(_mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(low)), low_scale),
               _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(high)), high_scale));
}

// The products of a code and an f16 scale are exact in f32, so that a minimum may be added in the same operation.

struct Q40 {
  static constexpr i64 kBytes = 18;
  static constexpr int kChunks = 1;
  template <typename O, typename Sink>
  static TEMPER_INLINE void decode(const u8* b, Sink&& sink) {
    const auto table = O::table(_mm512_mul_ps(half_lanes(b), shifted(low_counts(), 8)));
    sink(0, O::look_up(table, nibbles(b + 2)));
  }
};

struct Q41 {
  static constexpr i64 kBytes = 20;
  static constexpr int kChunks = 1;
  template <typename O, typename Sink>
  static TEMPER_INLINE void decode(const u8* b, Sink&& sink) {
    const auto table = O::table(_mm512_fmadd_ps(half_lanes(b), low_counts(), half_lanes(b + 2)));
    sink(0, O::look_up(table, nibbles(b + 4)));
  }
};

struct Q50 {
  static constexpr i64 kBytes = 22;
  static constexpr int kChunks = 1;
  template <typename O, typename Sink>
  static TEMPER_INLINE void decode(const u8* b, Sink&& sink) {
    const __m512 d = half_lanes(b);
    const auto table = O::table(_mm512_mul_ps(d, shifted(low_counts(), 16)), _mm512_mul_ps(d, low_counts()));
    sink(0, O::look_up(table, five_bits(nibbles(b + 6), load<u32>(b + 2))));
  }
};

struct Q51 {
  static constexpr i64 kBytes = 24;
  static constexpr int kChunks = 1;
  template <typename O, typename Sink>
  static TEMPER_INLINE void decode(const u8* b, Sink&& sink) {
    const __m512 d = half_lanes(b), minimum = half_lanes(b + 2);
    const auto table = O::table(_mm512_fmadd_ps(d, low_counts(), minimum), _mm512_fmadd_ps(d, high_counts(), minimum));
    sink(0, O::look_up(table, five_bits(nibbles(b + 8), load<u32>(b + 4))));
  }
};

struct Q80 {
  static constexpr i64 kBytes = 34;
  static constexpr int kChunks = 1;
  template <typename O, typename Sink>
  static TEMPER_INLINE void decode(const u8* b, Sink&& sink) {
    const __m512 d = half_lanes(b);
    sink(0, scaled_bytes<O>(load_16(b + 2), load_16(b + 18), d, d));
  }
};

// ---- Scaled formats: scales as they are stored, values of codes of four bits ----

struct F32Scale {
  static constexpr i64 kBytes = 4;
  static TEMPER_INLINE __m512 lanes(const u8* b) { return _mm512_set1_ps(load<float>(b)); }
};
struct Bf16Scale {
  static constexpr i64 kBytes = 2;
  static TEMPER_INLINE __m512 lanes(const u8* b) {
    return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(static_cast<u32>(load<u16>(b)) << 16)));
  }
};
struct E8M0Scale {  // 2^(e - 127)
  static constexpr i64 kBytes = 1;
  static TEMPER_INLINE __m512 lanes(const u8* b) {
    const u32 e = b[0];
    return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(e > 0 ? e << 23 : 0x00400000u)));
  }
};

struct CentredValues {
  static TEMPER_INLINE __m512 values() { return shifted(low_counts(), 8); }
};
template <const float (&kTable)[16]>
struct TableValues {
  static TEMPER_INLINE __m512 values() { return _mm512_load_ps(kTable); }
};

/// Groups of codes that stand for one of 16 values. kMinimum: then a value is added to them, in a type as the scale's.
template <int kGroup, typename Scale, typename Values = CentredValues, bool kMinimum = false>
struct FourBits {
  static constexpr i64 kHeader = Scale::kBytes * (kMinimum ? 2 : 1), kBytes = kHeader + kGroup / 2;
  static constexpr int kChunks = kGroup / 32;
  template <typename O, typename Sink>
  static TEMPER_INLINE void decode(const u8* b, Sink&& sink) {
    __m512 values = _mm512_mul_ps(Scale::lanes(b), Values::values());
    if constexpr (kMinimum) values = _mm512_add_ps(values, Scale::lanes(b + Scale::kBytes));
    const auto table = O::table(values);
#pragma GCC unroll 8
    for (int i = 0; i < kChunks; ++i) sink(i, O::look_up(table, nibbles(b + kHeader + i * 16)));
  }
};

template <int kGroup, typename Scale>
struct Int8Sym {
  static constexpr i64 kBytes = Scale::kBytes + kGroup;
  static constexpr int kChunks = kGroup / 32;
  template <typename O, typename Sink>
  static TEMPER_INLINE void decode(const u8* b, Sink&& sink) {
    const __m512 scale = Scale::lanes(b);
    const u8* codes = b + Scale::kBytes;
#pragma GCC unroll 8
    for (int i = 0; i < kChunks; ++i)
      sink(i, scaled_bytes<O>(load_16(codes + i * 32), load_16(codes + 16 + i * 32), scale, scale));
  }
};

/// Scales and minima of the eight sub-blocks of q4_k and q5_k: d · scale and dmin · minimum, both exact.
struct KScales {
  float scale[8], minimum[8];

  TEMPER_INLINE explicit KScales(const u8* b) {
    // Six bits each, in twelve bytes: sub-blocks 0–3 in the low bits of bytes 0–3 and 4–7; the others' low four bits in the
    // nibbles of bytes 8–11, their upper two in the tops of bytes 0–3 and 4–7.
    const u32 first = load<u32>(b + 4), second = load<u32>(b + 8), third = load<u32>(b + 12);
    const u32 scales[2] = {first & 0x3f3f3f3fu, (third & 0x0f0f0f0fu) | (first >> 2 & 0x30303030u)};
    const u32 minima[2] = {second & 0x3f3f3f3fu, (third >> 4 & 0x0f0f0f0fu) | (second >> 2 & 0x30303030u)};
    const auto products = [](__m256 factor, const u32(&codes)[2], float* out) TEMPER_FLAT {
      const __m128i bytes = _mm_set_epi32(0, 0, static_cast<int>(codes[1]), static_cast<int>(codes[0]));
      _mm256_storeu_ps(out, _mm256_mul_ps(factor, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))));
    };
    products(_mm256_cvtph_ps(_mm_set1_epi16(static_cast<short>(load<u16>(b)))), scales, scale);
    products(_mm256_cvtph_ps(_mm_set1_epi16(static_cast<short>(load<u16>(b + 2)))), minima, minimum);
  }
  TEMPER_INLINE __m512 values(__m512 counts, int s) const {
    return _mm512_fmsub_ps(_mm512_set1_ps(scale[s]), counts, _mm512_set1_ps(minimum[s]));
  }
};

struct Q4K {
  static constexpr i64 kBytes = 144;
  static constexpr int kChunks = 8;
  template <typename O, typename Sink>
  static TEMPER_INLINE void decode(const u8* b, Sink&& sink) {
    const KScales scales(b);
#pragma GCC unroll 8
    for (int pair = 0; pair < 4; ++pair) {
      const __m512i words = _mm512_cvtepu8_epi16(load_32(b + 16 + pair * 32));
      sink(2 * pair, O::look_up(O::table(scales.values(low_counts(), 2 * pair)), words));
      sink(2 * pair + 1, O::look_up(O::table(scales.values(low_counts(), 2 * pair + 1)), _mm512_srli_epi16(words, 4)));
    }
  }
};

struct Q5K {
  static constexpr i64 kBytes = 176;
  static constexpr int kChunks = 8;
  template <typename O, typename Sink>
  static TEMPER_INLINE void decode(const u8* b, Sink&& sink) {
    const KScales scales(b);
    const __m512i high = _mm512_cvtepu8_epi16(load_32(b + 16));
    const auto chunk = [&](int s, __m512i nibble) TEMPER_FLAT {
      const auto table = O::table(scales.values(low_counts(), s), scales.values(high_counts(), s));
      const __mmask32 fifth = _mm512_test_epi16_mask(high, _mm512_set1_epi16(static_cast<short>(1 << s)));
      sink(s, O::look_up(table, five_bits(nibble, fifth)));
    };
#pragma GCC unroll 8
    for (int pair = 0; pair < 4; ++pair) {
      const __m512i words = _mm512_cvtepu8_epi16(load_32(b + 48 + pair * 32));
      chunk(2 * pair, words);
      chunk(2 * pair + 1, _mm512_srli_epi16(words, 4));
    }
  }
};

struct Q6K {
  static constexpr i64 kBytes = 210;
  static constexpr int kChunks = 8;
  template <typename O, typename Sink>
  static TEMPER_INLINE void decode(const u8* b, Sink&& sink) {
    const __m512 d = half_lanes(b + 208);
    const __m512 scales = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_16(b + 192))));
#pragma GCC unroll 8
    for (int quarter = 0; quarter < 8; ++quarter) {
      const u8 *ql = b + quarter / 4 * 64 + quarter % 2 * 32, *qh = b + 128 + quarter / 4 * 32;
      const __m256i low = _mm256_srli_epi16(load_32(ql), quarter % 4 / 2 * 4);
      const __m256i high = _mm256_slli_epi16(_mm256_srli_epi16(load_32(qh), quarter % 4 * 2), 4);
      const __m256i code =
          _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi8(15)), _mm256_and_si256(high, _mm256_set1_epi8(48)));
      const __m256i centred = _mm256_sub_epi8(code, _mm256_set1_epi8(32));
      sink(quarter, scaled_bytes<O>(_mm256_castsi256_si128(centred), _mm256_extracti128_si256(centred, 1),
                                    _mm512_permutexvar_ps(_mm512_set1_epi32(2 * quarter), scales),
                                    _mm512_permutexvar_ps(_mm512_set1_epi32(2 * quarter + 1), scales)));
    }
  }
};

// ---- Rows ----------------------------------------------------------------------------------------------------------------

/// Independent sums per row of x: as many as hide the latency of an addition.
constexpr int sums_for(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }

template <typename O, int kM>
struct Sums {
  static constexpr int kSums = sums_for(kM);
  const typename O::Element* x;
  i64 stride;
  typename O::Sum sums[kM][kSums];

  TEMPER_INLINE Sums(const void* rows, i64 x_stride) : x(static_cast<const typename O::Element*>(rows)), stride(x_stride) {
    for (auto& row : sums)
      for (auto& sum : row) sum = _mm512_setzero_ps();
  }
  TEMPER_INLINE void add(const typename O::Group& w, i64 k, int chunk) {
    for (int m = 0; m < kM; ++m) {
      auto& sum = sums[m][chunk % kSums];
      sum = O::multiply_add(w, x + m * stride + k, sum);
    }
  }
  TEMPER_INLINE void add_part(const typename O::Group& w, i64 k, i64 n) {
    for (int m = 0; m < kM; ++m) sums[m][0] = O::multiply_add_part(w, x + m * stride + k, n, sums[m][0]);
  }
  TEMPER_INLINE float total(int m) const {
    __m512 sum = sums[m][0];
    if constexpr (kSums == 2) sum = _mm512_add_ps(sum, sums[m][1]);
    if constexpr (kSums == 4) sum = _mm512_add_ps(_mm512_add_ps(sum, sums[m][1]), _mm512_add_ps(sums[m][2], sums[m][3]));
    return _mm512_reduce_add_ps(sum);
  }
};

/// A row of whole blocks.
template <typename Format>
struct Blocks {
  template <typename O, int kM>
  static TEMPER_INLINE void row(const u8* w, i64 cols, Sums<O, kM>& sums) {
    constexpr int kUnroll = Format::kChunks >= 4 ? 1 : 4 / Format::kChunks;
    constexpr i64 kElements = Format::kChunks * kChunk;
    const auto block = [&](i64 b, int first) TEMPER_FLAT {
      Format::template decode<O>(w + b * Format::kBytes, [&](int chunk, const typename O::Group& group) TEMPER_FLAT {
        sums.add(group, b * kElements + chunk * kChunk, first + chunk);
      });
    };
    const i64 blocks = cols / kElements;
    i64 b = 0;
    for (; b + kUnroll <= blocks; b += kUnroll)
#pragma GCC unroll 4
      for (int u = 0; u < kUnroll; ++u) block(b + u, u * Format::kChunks);
    for (; b < blocks; ++b) block(b, 0);
  }
};

/// 16 bytes as numbers.
struct SignedBytes {
  static TEMPER_INLINE __m512 values(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }
};
struct E4M3Bytes {
  static TEMPER_INLINE __m512 values(__m128i bytes) {
    const __m512i code = _mm512_cvtepu8_epi32(bytes), magnitude = _mm512_and_si512(code, _mm512_set1_epi32(127));
    // As the upper bits of an f32 a code has another bias: 2^120 less, and as subnormals there are subnormals here.
    const __m512 small = _mm512_castsi512_ps(_mm512_slli_epi32(magnitude, 20));
    const __m512i value = _mm512_castps_si512(_mm512_mul_ps(small, _mm512_set1_ps(0x1p120f)));
    const __mmask16 nan = _mm512_cmpeq_epi32_mask(magnitude, _mm512_set1_epi32(127));
    const __m512i number = _mm512_mask_mov_epi32(value, nan, _mm512_set1_epi32(0x7fc00000));
    const __m512i sign = _mm512_slli_epi32(_mm512_srli_epi32(code, 7), 31);
    return _mm512_castsi512_ps(_mm512_or_si512(number, sign));
  }
};

/// One scale for the row, which may end within a chunk.
template <typename Scale, typename Codes>
struct BytesOfRow {
  template <typename O, int kM>
  static TEMPER_INLINE void row(const u8* w, i64 cols, Sums<O, kM>& sums) {
    const __m512 scale = Scale::lanes(w);
    const u8* codes = w + Scale::kBytes;
    i64 k = 0;
    const auto group = [&](__m128i low, __m128i high) TEMPER_FLAT {
      return O::of(_mm512_mul_ps(Codes::values(low), scale), _mm512_mul_ps(Codes::values(high), scale));
    };
    const auto chunk = [&](i64 at, int index)
                           TEMPER_FLAT { sums.add(group(load_16(codes + at), load_16(codes + at + 16)), at, index); };
    for (; k + 4 * kChunk <= cols; k += 4 * kChunk)
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) chunk(k + u * kChunk, u);
    for (; k + kChunk <= cols; k += kChunk) chunk(k, 0);
    if (k == cols) return;
    const __m256i rest = _mm256_maskz_loadu_epi8((1u << (cols - k)) - 1u, codes + k);
    sums.add_part(group(_mm256_castsi256_si128(rest), _mm256_extracti128_si256(rest, 1)), k, cols - k);
  }
};

/// Weights come from memory, once a token: they are asked for this long before their turn, and not to be kept.
constexpr i64 kBytesAhead = 4096;

template <typename Row, typename O, int kM>
TEMPER_INLINE void dot_rows_of(const DotTask& t, i64 first, i64 n) {
  Sums<O, kM> sums(static_cast<const typename O::Element*>(t.x) + first * t.x_stride, t.x_stride);
  const u8* row = t.weights + n * t.row_bytes;
  for (i64 at = 0; at < t.row_bytes; at += 64) _mm_prefetch(row + kBytesAhead + at, _MM_HINT_NTA);
  Row::row(row, t.cols, sums);
  for (int m = 0; m < kM; ++m) t.sums[(first + m) * t.sums_stride + n] = sums.total(m);
}

template <typename Row, typename O>
void dot(const DotTask& t) {
  i64 m = 0;
  for (; m + 4 <= t.m; m += 4)
    for (i64 n = 0; n < t.rows; ++n) dot_rows_of<Row, O, 4>(t, m, n);
  for (; m + 2 <= t.m; m += 2)
    for (i64 n = 0; n < t.rows; ++n) dot_rows_of<Row, O, 2>(t, m, n);
  for (; m < t.m; ++m)
    for (i64 n = 0; n < t.rows; ++n) dot_rows_of<Row, O, 1>(t, m, n);
}

template <typename O>
constexpr void fill(DotKernel (&kernels)[kDotRules]) {
  const auto set = [&](DotRule rule, DotKernel kernel) { kernels[static_cast<int>(rule)] = kernel; };
  set(DotRule::Q4_0, dot<Blocks<Q40>, O>);
  set(DotRule::Q4_1, dot<Blocks<Q41>, O>);
  set(DotRule::Q5_0, dot<Blocks<Q50>, O>);
  set(DotRule::Q5_1, dot<Blocks<Q51>, O>);
  set(DotRule::Q8_0, dot<Blocks<Q80>, O>);
  set(DotRule::Q4_K, dot<Blocks<Q4K>, O>);
  set(DotRule::Q5_K, dot<Blocks<Q5K>, O>);
  set(DotRule::Q6_K, dot<Blocks<Q6K>, O>);
  set(DotRule::Int4G32, dot<Blocks<FourBits<32, F32Scale>>, O>);
  set(DotRule::Int4G64, dot<Blocks<FourBits<64, F32Scale>>, O>);
  set(DotRule::Int4G128, dot<Blocks<FourBits<128, F32Scale>>, O>);
  set(DotRule::Int4G32Bf16, dot<Blocks<FourBits<32, Bf16Scale>>, O>);
  set(DotRule::Int4G128Bf16, dot<Blocks<FourBits<128, Bf16Scale>>, O>);
  set(DotRule::Tinygemm128Bf16, dot<Blocks<FourBits<128, Bf16Scale, CentredValues, true>>, O>);
  set(DotRule::Int8G32, dot<Blocks<Int8Sym<32, F32Scale>>, O>);
  set(DotRule::Int8G64, dot<Blocks<Int8Sym<64, F32Scale>>, O>);
  set(DotRule::Int8G128, dot<Blocks<Int8Sym<128, F32Scale>>, O>);
  set(DotRule::Int8G32Bf16, dot<Blocks<Int8Sym<32, Bf16Scale>>, O>);
  set(DotRule::Int8Row, dot<BytesOfRow<F32Scale, SignedBytes>, O>);
  set(DotRule::Int8RowBf16, dot<BytesOfRow<Bf16Scale, SignedBytes>, O>);
  set(DotRule::E4M3Row, dot<BytesOfRow<F32Scale, E4M3Bytes>, O>);
  set(DotRule::E4M3RowBf16, dot<BytesOfRow<Bf16Scale, E4M3Bytes>, O>);
  set(DotRule::Nf4, dot<Blocks<FourBits<64, F32Scale, TableValues<kNf4Values>>>, O>);
  set(DotRule::Fp4, dot<Blocks<FourBits<64, F32Scale, TableValues<kFp4Values>>>, O>);
  set(DotRule::Mxfp4, dot<Blocks<FourBits<32, E8M0Scale, TableValues<kE2M1Values>>>, O>);
}

}  // namespace
}  // namespace temper::quant::TEMPER_ISA_LEVEL
