// Row kernels of formats whose rows are groups {scale; codes of 4 or 8 bits}, in chunks of 32 elements: plain loops that
// compilers vectorise (fit and round) and vectors of the compiler's own kind (decode and counts). See isa/common.h for what
// keeps the bytes equal on every instruction set.
//
// A rule has: kBits, kLow and kHigh (ends of the codes' range), kScaleBytes, fit(values, n, encoded) → inverse of the scale
// it stores, code(x, inverse), scale(encoded).
#pragma once

#include "quant/isa/common.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

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

/// Least and greatest of the 32 values; a least of zero has the sign of the first zero, as comparing one by one gives.
template <typename T>
void extremes(const T* values, float& low, float& high) {
  using B = typename BitsOf<T>::type;
  using S = typename B::Signed;
  // Flipping a negative number's lower bits makes patterns order as values do, and back.
  const auto ordered = [](S bits) { return static_cast<S>(bits ^ (bits < 0 ? ~B::kSign : S{0})); };
  S least = ordered(B::of(values[0])), greatest = least;
  for (i64 i = 1; i < kChunk; ++i) {
    const S key = ordered(B::of(values[i]));
    least = key < least ? key : least;
    greatest = key > greatest ? key : greatest;
  }
  low = B::value(ordered(least));
  high = B::value(ordered(greatest));
  if (low != 0.0f) return;
  for (i64 i = kChunk - 1; i >= 0; --i)
    if (widen(values[i]) == 0.0f) low = widen(values[i]);
}

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

/// Codes of 4 bits, two in a byte: elements j and j + kHalf.
template <int kHalf>
void put_nibbles(const u8* codes, u8* qs) {
  for (i64 j = 0; j < kHalf; ++j) qs[j] = static_cast<u8>((codes[j] & 15) | codes[j + kHalf] << 4);
}

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

/// Adds 32 codes, a byte each; `low` and `high` are the ends of their range.
inline void count_codes(const Bytes* now, const Bytes* before, u8 low, u8 high, ByteSums& sums) {
  for (int half = 0; half < 2; ++half) {  // a comparison gives -1 where it holds
    sums.changed -= reinterpret_cast<Bytes>(now[half] != before[half]);
    sums.saturated -= reinterpret_cast<Bytes>((now[half] == low) | (now[half] == high));
  }
  if (++sums.chunks == ByteSums::kPerFlush) sums.flush();
}

template <typename Rule>
void count_chunk(const u8* encoded, const u8* earlier, ByteSums& sums) {
  constexpr int kOffset = Rule::kBits == 4 ? 8 : 0;
  constexpr u8 kLow = static_cast<u8>(Rule::kLow + kOffset), kHigh = static_cast<u8>(Rule::kHigh + kOffset);
  const Unpacked now = unpack<Rule>(encoded), before = unpack<Rule>(earlier);
  count_codes(now.halves, before.halves, kLow, kHigh, sums);
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
}  // namespace temper::quant::TEMPER_ISA_LEVEL
