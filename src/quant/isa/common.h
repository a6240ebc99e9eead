// What kernels share: scalars, vectors and roundings, the same source in every compilation of isa/*.cpp.
//
// Each element goes through the same IEEE operations on every instruction set (no contraction, no approximate reciprocal),
// and reductions are integer maxima and sums, whose order does not matter: hence the same bytes everywhere. All of it has
// internal linkage and calls no inline function of another header (but intrinsics, which are always inlined), so that no
// code for a newer CPU can be merged into what an older one runs.
#pragma once

#include "quant/bits.h"
#include "quant/row_kernels.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

constexpr i64 kChunk = 32;

// ---- Values: f32, or bf16 as bits ----

inline float widen(float x) { return x; }
inline float widen(u16 x) { return float_of(static_cast<u32>(x) << 16); }

// ---- Vectors ----

// Sixteen bytes as a vector, which every instruction set has. Bytes are copied into locals, as in memory they may alias
// anything.
using Bytes = u8 __attribute__((vector_size(16)));

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
inline Ints widen_codes(Bytes codes, int) {
  return reinterpret_cast<Ints>(_mm512_maskz_cvtepi8_epi32(kAll, reinterpret_cast<__m128i>(codes)));
}
inline void store_low_halves(Uints x, u16* out) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_maskz_cvtepi32_epi16(kAll, reinterpret_cast<__m512i>(x)));
}
#elif defined(__AVX2__)
inline Ints widen_codes(Bytes codes, int first) {
  const __m128i bytes = reinterpret_cast<__m128i>(codes);
  return reinterpret_cast<Ints>(_mm256_cvtepi8_epi32(first == 0 ? bytes : _mm_unpackhi_epi64(bytes, bytes)));
}
inline void store_low_halves(Uints x, u16* out) {  // values are below 2^16: nothing saturates
  const __m256i wide = reinterpret_cast<__m256i>(x);
  const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), words);
}
#else
/// Sign-extends codes first … first + kLanes.
inline Ints widen_codes(Bytes codes, int first) {
  Ints wide;
  for (int j = 0; j < kLanes; ++j) wide[j] = static_cast<i8>(codes[first + j]);
  return wide;
}
/// Stores the lower 16 bits of each lane.
inline void store_low_halves(Uints x, u16* out) {
  for (int j = 0; j < kLanes; ++j) out[j] = static_cast<u16>(x[j]);
}
#endif

inline void store_rounded(Floats x, float* out) { __builtin_memcpy(out, &x, sizeof(x)); }
/// To bf16, nearest even, NaN kept (as to_bf16 of base/scalar.h).
inline void store_rounded(Floats x, u16* out) {
  const Uints u = reinterpret_cast<Uints>(x);
  const Uints rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16, nan = u >> 16 | 0x40u;
  const Ints is_nan = reinterpret_cast<Ints>(u & 0x7fffffffu) > 0x7f800000;
  const Uints mask = reinterpret_cast<Uints>(is_nan);
  store_low_halves((nan & mask) | (rounded & ~mask), out);
}

/// Decodes 16 signed codes: code * scale + bias, the product and the sum each rounded.
template <typename T>
void decode_affine(Bytes codes, float scale, float bias, T* values) {
  for (int j = 0; j < 16; j += kLanes)
    store_rounded(__builtin_convertvector(widen_codes(codes, j), Floats) * scale + bias, values + j);
}

}  // namespace
}  // namespace temper::quant::TEMPER_ISA_LEVEL
