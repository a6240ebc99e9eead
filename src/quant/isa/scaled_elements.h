// Elements of the formats of scaled_format.h in vectors: from values to raw codes and back.
#pragma once

#include "quant/isa/common.h"
#include "quant/isa/four_bit_values.h"
#include "quant/scaled_format.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

// ---- Changes of width ----

inline Floats as_floats(Uints bits) { return reinterpret_cast<Floats>(bits); }
inline Uints as_bits(Floats x) { return reinterpret_cast<Uints>(x); }

inline Floats load_values(const float* values) {
  Floats x;
  __builtin_memcpy(&x, values, sizeof(x));
  return x;
}
#if defined(__AVX512F__)
inline Floats load_values(const u16* values) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
  return as_floats(reinterpret_cast<Uints>(_mm512_maskz_cvtepu16_epi32(kAll, halves)) << 16);
}
inline void store_low_bytes(Ints x, u8* out) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_maskz_cvtepi32_epi8(kAll, reinterpret_cast<__m512i>(x)));
}
#elif defined(__AVX2__)
inline Floats load_values(const u16* values) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(values));
  return as_floats(reinterpret_cast<Uints>(_mm256_cvtepu16_epi32(halves)) << 16);
}
inline void store_low_bytes(Ints x, u8* out) {
  const __m256i first = _mm256_set1_epi32(0x0c080400);  // the lowest byte of each of a half's four lanes
  const __m256i bytes = _mm256_shuffle_epi8(reinterpret_cast<__m256i>(x), first);
  const __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), both);
}
#else
inline Floats load_values(const u16* values) {
  Floats x;
  for (int j = 0; j < kLanes; ++j) x[j] = widen(values[j]);
  return x;
}
inline void store_low_bytes(Ints x, u8* out) {
  for (int j = 0; j < kLanes; ++j) out[j] = static_cast<u8>(x[j]);
}
#endif

// ---- Arithmetic ----

inline Floats to_bf16_floats(Floats x) {
  const Uints u = as_bits(x);
  return as_floats((u + 0x7fffu + (u >> 16 & 1u)) & 0xffff0000u);
}
/// To 11 bits of mantissa: f16 where it is normal. Smaller values only meet integers, which they round to the same.
inline Floats to_f16_floats(Floats x) {
  const Uints u = as_bits(x);
  return as_floats((u + 0xfffu + (u >> 13 & 1u)) & 0xffffe000u);
}

template <Arithmetic A>
inline Floats scaled(Floats w, const Rounding& r) {
  if constexpr (A == Arithmetic::Multiply) return w * r.factor;
  if constexpr (A == Arithmetic::MultiplyBf16) return to_bf16_floats(w * r.factor);
  if constexpr (A == Arithmetic::MultiplyF16) return to_f16_floats(w * r.factor);
  if constexpr (A == Arithmetic::Divide) return w / r.factor;
  if constexpr (A == Arithmetic::DivideBf16) return to_bf16_floats(w / r.factor);
  if constexpr (A == Arithmetic::DivideAdd) return w / r.factor + r.shift;
  if constexpr (A == Arithmetic::DivideAddBf16) return to_bf16_floats(to_bf16_floats(w / r.factor) + r.shift);
  if constexpr (A == Arithmetic::DivideAddF16) return to_f16_floats(to_f16_floats(w / r.factor) + r.shift);
  if constexpr (A == Arithmetic::ShiftDivide) return (w - r.shift) / r.factor;
}

// ---- Raw codes of scaled values ----

constexpr int kBitsOf[] = {2, 3, 4, 5, 6, 8, 8, 8, 6, 6, 4, 4, 4};
constexpr bool is_integer(Element e) { return e <= Element::Int8; }

struct Small {
  int exponent, mantissa;
  u32 largest;  ///< Bits of the largest value.

  constexpr int bias() const { return (1 << (exponent - 1)) - 1; }
};
constexpr Small small_of(Element e) {
  return e == Element::E4M3   ? Small{4, 3, 0x43e00000u}
         : e == Element::E5M2 ? Small{5, 2, 0x47600000u}
         : e == Element::E2M3 ? Small{2, 3, 0x40f00000u}
         : e == Element::E3M2 ? Small{3, 2, 0x41e00000u}
                              : Small{2, 1, 0x40c00000u};
}

template <Element E>
inline Ints small_codes(Floats t) {
  constexpr Small kFormat = small_of(E);
  constexpr int kDrop = 23 - kFormat.mantissa;
  constexpr u32 kNormal = static_cast<u32>(128 - kFormat.bias()) << 23;  // the smallest normal
  // A number whose ulp is that of subnormals: adding it leaves them in the low bits.
  constexpr u32 kShift = static_cast<u32>(127 + 24 - kFormat.bias() - kFormat.mantissa) << 23;
  const Uints bits = as_bits(t), magnitude = bits & 0x7fffffffu;
  const Uints m = magnitude < kFormat.largest ? magnitude : Uints{} + kFormat.largest;
  const Uints normal = ((m + ((1u << (kDrop - 1)) - 1) + (m >> kDrop & 1u)) >> kDrop) -
                       (static_cast<u32>(127 - kFormat.bias()) << kFormat.mantissa);
  const Uints subnormal = as_bits(as_floats(m) + __builtin_bit_cast(float, kShift)) - kShift;
  const Uints code = m < kNormal ? subnormal : normal;
  return reinterpret_cast<Ints>(code | bits >> 31 << (kFormat.exponent + kFormat.mantissa));
}

// Midpoints of neighbouring values of bitsandbytes' tables (scaled_format.cpp).
constexpr float kNf4Bounds[15] = {-0x1.b239bp-1f,  -0x1.38a4ep-1f,  -0x1.d709p-2f,  -0x1.5bd4ecp-2f, -0x1.e079d8p-3f,
                                  -0x1.1a7178p-3f, -0x1.74f0e2p-5f, 0x1.45f5fep-5f, 0x1.ec90c4p-4f,  0x1.a0cfcp-3f,
                                  0x1.2b05a8p-2f,  0x1.8ea7f2p-2f,  0x1.00da08p-1f, 0x1.491b5ep-1f,  0x1.b913b4p-1f};
constexpr float kFp4Bounds[15] = {-0x1.aaaaacp-1f, -0x1.2aaaacp-1f, -0x1.aaaaacp-2f, -0x1.2aaaacp-2f,
                                  -0x1.aaaaacp-3f, -0x1.6p-4f,      -0x1.555556p-9f, 0.0f,
                                  0x1.555556p-9f,  0x1.6p-4f,       0x1.aaaaacp-3f,  0x1.2aaaacp-2f,
                                  0x1.aaaaacp-2f,  0x1.2aaaacp-1f,  0x1.aaaaacp-1f};
alignas(64) constexpr float kFp4Order[16] = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};

/// Looks up 16 values by indices 0 … 15.
inline Floats lookup(const float* table, Ints index) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(
      _mm512_maskz_permutexvar_ps(kAll, reinterpret_cast<__m512i>(index), _mm512_load_ps(table)));
#elif defined(__AVX2__)
  const __m256i i = reinterpret_cast<__m256i>(index);
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(table), i);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), i);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
#else
  Floats values;
  for (int j = 0; j < kLanes; ++j) values[j] = table[index[j]];
  return values;
#endif
}

template <Element E>
inline Ints raw_codes(Floats t, const Rounding& r) {
  if constexpr (is_integer(E)) {
    constexpr float kRint = 12582912.0f;  // adding 1.5 * 2^23 leaves the nearest integer in the low bits
    constexpr i32 kOffset = E == Element::Int8 ? 0 : 1 << (kBitsOf[static_cast<int>(E)] - 1);
    const Floats low = t > r.low ? t : Floats{} + r.low;
    const Floats clipped = low < r.high ? low : Floats{} + r.high;
    return reinterpret_cast<Ints>(as_bits(clipped + kRint) - __builtin_bit_cast(u32, kRint)) + (kOffset + r.zero);
  } else if constexpr (E == Element::Nf4 || E == Element::Fp4) {
    const float* bounds = E == Element::Nf4 ? kNf4Bounds : kFp4Bounds;
    Ints index{};
    for (int i = 0; i < 15; ++i) index -= reinterpret_cast<Ints>(t > bounds[i]);  // a comparison gives -1 where it holds
    return E == Element::Nf4 ? index : __builtin_convertvector(lookup(kFp4Order, index), Ints);
  } else {
    return small_codes<E>(t);
  }
}

// ---- Values of raw codes ----

/// Values of raw codes (sign-extended bytes), of integers less their zero point.
template <Element E>
inline Floats values_of(Ints raw, i32 zero) {
  if constexpr (is_integer(E)) {
    constexpr i32 kOffset = E == Element::Int8 ? 0 : 1 << (kBitsOf[static_cast<int>(E)] - 1);
    return __builtin_convertvector(raw - (kOffset + zero), Floats);
  } else if constexpr (E == Element::Nf4) {
    return lookup(kNf4Values, raw);
  } else if constexpr (E == Element::Fp4) {
    return lookup(kFp4Values, raw);
  } else if constexpr (E == Element::E2M1) {
    return lookup(kE2M1Values, raw);
  } else {
    constexpr Small kFormat = small_of(E);
    constexpr int kBias = kFormat.bias(), kTop = kFormat.exponent + kFormat.mantissa;
    const Uints code = reinterpret_cast<Uints>(raw), magnitude = code & ((1u << kTop) - 1);
    const Uints normal = (magnitude << (23 - kFormat.mantissa)) + (static_cast<u32>(127 - kBias) << 23);
    constexpr float kUlp = __builtin_bit_cast(float, static_cast<u32>(128 - kBias - kFormat.mantissa) << 23);
    const Floats subnormal = __builtin_convertvector(reinterpret_cast<Ints>(magnitude), Floats) * kUlp;
    Uints bits = magnitude < (1u << kFormat.mantissa) ? as_bits(subnormal) : normal;
    if constexpr (E == Element::E4M3) bits = magnitude == 0x7fu ? Uints{} + 0x7fc00000u : bits;
    if constexpr (E == Element::E5M2) {
      bits = magnitude == 0x7cu ? Uints{} + 0x7f800000u : bits;
      bits = magnitude > 0x7cu ? Uints{} + 0x7fc00000u : bits;
    }
    return reinterpret_cast<Floats>(bits | (code >> kTop & 1u) << 31);
  }
}

}  // namespace
}  // namespace temper::quant::TEMPER_ISA_LEVEL
