// iq4_nl and iq4_xs (GGUF types 20 and 23): codes index a table of 16 values (search.h), for the definition (iq4.cpp) and
// the kernels (isa/iq4.cpp); internal linkage: see bits.h.
//
//     iq4_nl   | f16 d | u8 qs[16] |                                       18 bytes for 32    x' = d * kValues[q]
//     iq4_xs   | f16 d | u16 scales_h | u8 scales_l[4] | u8 qs[128] |     136 bytes for 256   x' = (d * (sc - 32)) *
//     kValues[q]
//
// qs as in q4_0, 32 elements at a time. Scale sc of sub-block s, of 6 bits: nibble s % 2 of scales_l[s / 2], bits 2s and 2s
// + 1 of scales_h.
#pragma once

#include "quant/search.h"

namespace temper::quant {
namespace {

/// Weights of 32 elements; `energy` is twice the block's mean square.
template <typename V>
void table_weights(const V* x, const V* importance, V energy, V* weights) {
  if (importance) {
    weigh<32>(x, importance, energy, weights);
  } else {
    for (int i = 0; i < 32; ++i) weights[i] = x[i] * x[i];
  }
}

template <int kElements>
float energy_of(const float* x) {
  float sum = 0;
  for (int i = 0; i < kElements; ++i) sum += x[i] * x[i];
  return sum * (2.0f / kElements);
}

/// 32 codes with `scale`, two in a byte; the code of value 1 where the scale is 0.
inline void put_table_codes(const float* x, float scale, u8* qs) {
  const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
  i32 codes[32];
  for (int i = 0; i < 32; ++i) codes[i] = nearest_index<float>(inverse * x[i]);
  for (int i = 0; i < 16; ++i) qs[i] = static_cast<u8>(codes[i] | codes[i + 16] << 4);
}

struct Iq4Nl {
  struct Block {
    u16 d;
    u8 qs[16];
  };
  static_assert(sizeof(Block) == 18);
  static constexpr int kElements = 32, kParams = 1;

  static void finish(const float* scales, float* params) { params[0] = scales[0]; }
  static void get(const Block& block, float* params) { params[0] = from_half(block.d); }
  static void round(const float* x, const float* params, Block& block) {
    block.d = half_bits(params[0]);
    put_table_codes(x, params[0], block.qs);
  }
};

/// Parameters: the unrounded d, and the 8 scales as integers -32 … 31, with which codes are found.
struct Iq4Xs {
  struct Block {
    u16 d, scales_h;
    u8 scales_l[4], qs[128];
  };
  static_assert(sizeof(Block) == 136);
  static constexpr int kElements = 256, kParams = 9;

  static void finish(const float* scales, float* params) {
    const float d = -first_largest_of<8>(scales) / 32.0f, inverse = d != 0 ? 1.0f / d : 0.0f;
    params[0] = d;
    for (int s = 0; s < 8; ++s) params[1 + s] = nearest<float>(inverse * scales[s], -32, 31);
  }
  static void get(const Block& block, float* params) {
    params[0] = from_half(block.d);
    for (int s = 0; s < 8; ++s) {
      const int scale = (block.scales_l[s / 2] >> s % 2 * 4 & 15) | (block.scales_h >> s * 2 & 3) << 4;
      params[1 + s] = static_cast<float>(scale - 32);
    }
  }
  static void round(const float* x, const float* params, Block& block) {
    block.d = half_bits(params[0]);
    u32 high = 0;
    for (int s = 0; s < 8; ++s) {
      const auto scale = static_cast<u32>(params[1 + s] + 32);
      high |= scale >> 4 << 2 * s;
      block.scales_l[s / 2] = static_cast<u8>(s % 2 == 0 ? scale & 15 : block.scales_l[s / 2] | (scale & 15) << 4);
      put_table_codes(x + s * 32, params[0] * params[1 + s], block.qs + s * 16);
    }
    block.scales_h = static_cast<u16>(high);
  }
};

template <typename Format>
void reround_to_table(const float* x, typename Format::Block& block) {
  float params[Format::kParams];
  Format::get(block, params);
  Format::round(x, params, block);
}

}  // namespace
}  // namespace temper::quant
