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

/// Adding 1.5 · 2^23 leaves no bits after the point: nearest even. The sum's lowest bits are the integer.
inline float rounded(float x) { return (x + 12582912.0f) - 12582912.0f; }

template <typename T>
u32 largest_magnitude(const T* x, i64 n) {
  u32 largest = 0;
  for (i64 i = 0; i < n; ++i) {
    const u32 magnitude = bits_of(widen(x[i])) & 0x7fffffffu;  // floats order as their bits do
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

// What becomes of a block of codes: values of the activations' type, or bytes and scales.

template <typename T>
struct Values {
  T* out;
  void operator()(i64 at, float code, float d) const { put(code * d, out + at); }
  void scale(i64, int, float) const {}
};

struct Codes {
  u8* out;
  float* scales;
  void operator()(i64 at, float code, float) const { out[at] = static_cast<u8>(bits_of(code + 12582912.0f) ^ 128u); }
  void scale(i64 at, int n, float d) const {
    for (int i = 0; i < n / 32; ++i) scales[at / 32 + i] = d;
  }
};

template <typename T, typename Sink>
void blocks(const T* x, i64 cols, const Sink& sink) {
  constexpr int kBlock = 32;
  for (i64 b = 0; b < cols; b += kBlock) {
    const float largest = float_of(largest_magnitude(x + b, kBlock));
    const float d = from_half(half_bits(largest / 127.0f)), inverse = largest != 0.0f ? 127.0f / largest : 0.0f;
    sink.scale(b, kBlock, d);
    for (int i = 0; i < kBlock; ++i) sink(b + i, rounded(widen(x[b + i]) * inverse), d);
  }
}

template <typename T, typename Sink>
void superblocks(const T* x, i64 cols, const Sink& sink) {
  constexpr int kBlock = 256;
  for (i64 b = 0; b < cols; b += kBlock) {
    const u32 magnitude = largest_magnitude(x + b, kBlock);
    float largest = 0.0f;
    for (int i = kBlock - 1; i >= 0; --i)
      largest = (bits_of(widen(x[b + i])) & 0x7fffffffu) == magnitude ? widen(x[b + i]) : largest;
    const float scale = largest != 0.0f ? -127.0f / largest : 0.0f, d = largest != 0.0f ? 1.0f / scale : 0.0f;
    sink.scale(b, kBlock, d);
    for (int i = 0; i < kBlock; ++i) {
      const float code = rounded(scale * widen(x[b + i]));
      sink(b + i, code < 127.0f ? code : 127.0f, d);
    }
  }
}

template <typename T>
void block_values(const T* x, i64 cols, T* out) {
  blocks(x, cols, Values<T>{out});
}
template <typename T>
void superblock_values(const T* x, i64 cols, T* out) {
  superblocks(x, cols, Values<T>{out});
}
template <typename T>
void block_codes(const T* x, i64 cols, u8* codes, float* scales) {
  blocks(x, cols, Codes{codes, scales});
}
template <typename T>
void superblock_codes(const T* x, i64 cols, u8* codes, float* scales) {
  superblocks(x, cols, Codes{codes, scales});
}

}  // namespace

extern const ActivationKernels kActivationKernels;
const ActivationKernels kActivationKernels = {
    {block_values<float>, superblock_values<float>},
    {block_values<u16>, superblock_values<u16>},
    largest_magnitude<float>,
    largest_magnitude<u16>,
    {block_codes<float>, superblock_codes<float>},
    {block_codes<u16>, superblock_codes<u16>},
};

}  // namespace temper::quant::TEMPER_ISA_LEVEL
