// What kernels of integer products do with a vector of rows of weights: lane n is row n.
#pragma once

#include "quant/isa/int_unpack.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

template <typename V>
TEMPER_INLINE V load_vector(const void* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(v));
  return v;
}
TEMPER_INLINE Floats broadcast(float x) { return x - Floats{}; }
TEMPER_INLINE Ints broadcast(i32 x) { return x - Ints{}; }

/// Totals of the `count` rows from `first` on, for row m of x.
template <int kVectors>
void write(const IntTask& t, i64 m, i64 first, i64 count, const Floats* totals) {
  constexpr int kRows = kLanes * kVectors;
  const std::size_t n = static_cast<std::size_t>(count);
  const i64 at = m * t.out_stride + first;
  if (t.type == IntOutput::BF16) {
    u16 row[kRows];
    for (int v = 0; v < kVectors; ++v) store_rounded(totals[v], row + v * kLanes);
    __builtin_memcpy(static_cast<u16*>(t.out) + at, row, n * sizeof(u16));
    return;
  }
  float* out = static_cast<float*>(t.out) + at;
  float row[kRows];
  __builtin_memcpy(row, totals, sizeof(row));
  if (t.type == IntOutput::AddF32)
    for (std::size_t i = 0; i < n; ++i) out[i] += row[i];
  else
    __builtin_memcpy(out, row, n * sizeof(float));
}

}  // namespace
}  // namespace temper::quant::TEMPER_ISA_LEVEL
