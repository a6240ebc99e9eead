// Rounding of activations to 8 bits: plain loops over a block, which compilers vectorise, with the same IEEE operations on
// every instruction set.
#include "quant/isa/activations.h"

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

/// Adding 1.5 · 2^23 leaves no bits after the point: nearest even.
inline float rounded(float x) { return (x + 12582912.0f) - 12582912.0f; }

template <typename T>
u32 largest_magnitude(const T* x, int n) {
  u32 largest = 0;
  for (int i = 0; i < n; ++i) {
    const u32 magnitude = bits_of(widen(x[i])) & 0x7fffffffu;  // floats order as their bits do
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

template <typename T>
void blocks(const T* x, i64 cols, T* out) {
  constexpr int kBlock = 32;
  for (i64 b = 0; b < cols; b += kBlock) {
    const float largest = float_of(largest_magnitude(x + b, kBlock));
    const float d = from_half(half_bits(largest / 127.0f)), inverse = largest != 0.0f ? 127.0f / largest : 0.0f;
    for (int i = 0; i < kBlock; ++i) put(rounded(widen(x[b + i]) * inverse) * d, out + b + i);
  }
}

template <typename T>
void superblocks(const T* x, i64 cols, T* out) {
  constexpr int kBlock = 256;
  for (i64 b = 0; b < cols; b += kBlock) {
    const u32 magnitude = largest_magnitude(x + b, kBlock);
    float largest = 0.0f;
    for (int i = kBlock - 1; i >= 0; --i)
      largest = (bits_of(widen(x[b + i])) & 0x7fffffffu) == magnitude ? widen(x[b + i]) : largest;
    const float scale = largest != 0.0f ? -127.0f / largest : 0.0f, d = largest != 0.0f ? 1.0f / scale : 0.0f;
    for (int i = 0; i < kBlock; ++i) {
      const float code = rounded(scale * widen(x[b + i]));
      put((code < 127.0f ? code : 127.0f) * d, out + b + i);
    }
  }
}

}  // namespace

extern const ActivationKernels kActivationKernels;
const ActivationKernels kActivationKernels = {{blocks<float>, superblocks<float>}, {blocks<u16>, superblocks<u16>}};

}  // namespace temper::quant::TEMPER_ISA_LEVEL
