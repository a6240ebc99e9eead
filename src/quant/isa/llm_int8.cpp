// Activations as LLM.int8 takes them: plain loops, which compilers vectorise.
#include "quant/isa/llm_int8.h"

#include "quant/bits.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

inline float widen(float x) { return x; }
inline float widen(u16 x) { return float_of(static_cast<u32>(x) << 16); }
inline void put(float x, float* out) { *out = x; }
inline void put(float x, u16* out) {
  const u32 u = bits_of(x);
  *out = static_cast<u16>((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/// |x| rounded to f16; beyond f16's largest number, where it only has to be beyond the threshold, to f16's mantissa.
inline float half_magnitude(float x) {
  const u32 magnitude = bits_of(x) & 0x7fffffffu;
  const float subnormal = (float_of(magnitude) + 0.5f) - 0.5f;
  const float normal = float_of((magnitude + 0xfffu + (magnitude >> 13 & 1u)) & ~0x1fffu);
  return magnitude < 0x38800000u ? subnormal : normal;
}

template <typename T>
void encode(const T* x, i64 cols, i64, u8* row) {
  u32 largest = 0;  // floats order as their bits do
  for (i64 i = 0; i < cols; ++i) {
    const float h = half_magnitude(widen(x[i]));
    const u32 below = h < kOutlierThreshold ? bits_of(h) : 0u;
    largest = below > largest ? below : largest;
  }
  const float absmax = float_of(largest), factor = largest != 0 ? 1.0f / absmax * 127.0f : 0.0f;
  store(row, absmax);
  u8 *outliers = row + 4, *codes = outliers + 4 * cols;
  for (i64 i = 0; i < cols; ++i) {
    const float value = widen(x[i]), h = half_magnitude(value);
    const float t = float_of(bits_of(h * factor) | (bits_of(value) & 0x80000000u));
    // Adding 1.5 · 2^23 leaves no bits after the point: nearest even. The sum's lowest bits are the integer.
    const u32 code = bits_of(t + 12582912.0f) & 0xffu;
    codes[i] = static_cast<u8>(h < kOutlierThreshold ? code : 0u);
    store(outliers + 4 * i, h < kOutlierThreshold ? 0.0f : value);
  }
}

template <typename T>
void decode(const u8* row, i64 cols, i64, T* out) {
  const float absmax = load<float>(row);
  const u8 *outliers = row + 4, *codes = outliers + 4 * cols;
  for (i64 i = 0; i < cols; ++i) {
    const float outlier = load<float>(outliers + 4 * i);
    const float rounded = static_cast<float>(static_cast<i8>(codes[i])) * absmax * kInt8Step;
    put(outlier != 0.0f ? outlier : rounded, out + i);
  }
}

}  // namespace

extern const RowKernels kLlmInt8Rows;
const RowKernels kLlmInt8Rows = {encode<float>, encode<u16>, decode<float>, decode<u16>, nullptr};

}  // namespace temper::quant::TEMPER_ISA_LEVEL
