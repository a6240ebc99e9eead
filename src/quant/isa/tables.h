// Codes that index a table of 16 small integers.
#pragma once

#include "quant/isa/common.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

/// table[code] of 16 codes 0 … 15.
inline Bytes looked_up(const int* values, Bytes codes) {
  u8 table[16];
  for (int k = 0; k < 16; ++k) table[k] = static_cast<u8>(values[k]);
#if defined(__AVX2__)
  return reinterpret_cast<Bytes>(_mm_shuffle_epi8(load<__m128i>(table), reinterpret_cast<__m128i>(codes)));
#else
  Bytes found;
  for (int j = 0; j < 16; ++j) found[j] = table[codes[j]];
  return found;
#endif
}

/// 32 elements, two in a byte, as q4_0 has them.
template <typename T>
void decode_pairs(const int* table, const u8* qs, float scale, T* values) {
  const Bytes packed = load<Bytes>(qs);
  decode_affine(looked_up(table, packed & 15), scale, -0.0f, values);
  decode_affine(looked_up(table, packed >> 4), scale, -0.0f, values + 16);
}

}  // namespace
}  // namespace temper::quant::TEMPER_ISA_LEVEL
