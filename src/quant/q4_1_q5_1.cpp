// Blocks of 32 elements with an f16 scale and an f16 minimum: q4_1 and q5_1 (GGUF types 3 and 7).
//
//     q4_1   | f16 d | f16 m |            u8 qs[16] |   20 bytes   x' = q * d + m,   qs[j] = low4(q[j]) | low4(q[j + 16]) <<
//     4 q5_1   | f16 d | f16 m | u8 qh[4] | u8 qs[16] |   24 bytes   the same; bit 4 of element j is bit j of qh
//
// m = min x, d = (max x - m) / (15 or 31); q = trunc((x - m)/d + 0.5) with the unrounded d and m. With importance: a search
// (search.h), whose codes come from the step it tried. Equal to ggml byte for byte; where 1/d overflows, every code is 0, as
// x86 converts what is out of range.
#include <cfloat>
#include <cmath>

#include "quant/block_codec.h"
#include "quant/five_bits.h"
#include "quant/formats.h"
#include "quant/isa/blocks.h"
#include "quant/search.h"

namespace temper::quant {
namespace {

/// Parameters: d, m, the step and origin of the search; a step of 0 stands for the plain rule.
template <int kBits, const PerIsa<RowKernels>& kernels>
struct AffineBlock {
  static constexpr const PerIsa<RowKernels>& kRows = kernels;
  static constexpr std::size_t kElements = 32, kParams = 4;
  static constexpr int kLow = 0, kHigh = (1 << kBits) - 1;
  static constexpr bool kWeighted = true;

  static void fit(const float* x, const float* importance, float energy, float* params) {
    if (importance) {
      float weights[32];
      weigh<32>(x, importance, energy, weights);
      const AffineFit<float> found = fit_affine<32>(x, weights, {kHigh, -0.9f, 0.05f, 36});
      params[0] = found.scale;
      params[1] = -found.minimum;
      params[2] = found.step;
      params[3] = found.origin;
      return;
    }
    float low = FLT_MAX, high = -FLT_MAX;
    for (int j = 0; j < 32; ++j) {
      if (x[j] < low) low = x[j];
      if (x[j] > high) high = x[j];
    }
    params[0] = (high - low) / static_cast<float>(kHigh);
    params[1] = low;
    params[2] = params[3] = 0;
  }

  static int code(float x, const float* params) {
    if (params[2] != 0) return searched_code(x, params[2], params[3], kLow, kHigh);
    const float inverse = params[0] != 0.0f ? 1.0f / params[0] : 0.0f;
    const float t = (x - params[1]) * inverse + 0.5f;
    if (std::isinf(inverse) || !(t >= 0.0f)) return 0;
    return t < static_cast<float>(kHigh) ? static_cast<int>(t) : kHigh;
  }

  static void decode(f16 d, f16 m, const std::int32_t* codes, float* values) {
    for (int j = 0; j < 32; ++j) values[j] = static_cast<float>(codes[j]) * to_float(d) + to_float(m);
  }
};

/// Rounds with the stored d and m, unless no code changes a value.
template <typename Format>
void reround_affine(const float* x, typename Format::Block& block) {
  const float params[4] = {to_float(block.d), to_float(block.m), 0, 0};
  if (params[0] != 0.0f) Format::round(x, params, block);
}

struct Q41 : AffineBlock<4, kQ41Rows> {
  struct Block {
    f16 d, m;
    std::uint8_t qs[16];
  };
  static_assert(sizeof(Block) == 20);
  static constexpr const char* kName = "q4_1";
  static constexpr const PerIsa<KeptKernels>& kKept = kQ41Kept;

  static void round(const float* x, const float* params, Block& block) {
    block.d = to_f16(params[0]);
    block.m = to_f16(params[1]);
    for (int j = 0; j < 16; ++j) block.qs[j] = static_cast<std::uint8_t>(code(x[j], params) | code(x[j + 16], params) << 4);
  }
  static void reround(const float* x, Block& block) { reround_affine<Q41>(x, block); }
  static void codes(const Block& block, std::int32_t* codes) {
    for (int j = 0; j < 16; ++j) {
      codes[j] = block.qs[j] & 15;
      codes[j + 16] = block.qs[j] >> 4;
    }
  }
  static void decode(const Block& block, float* values) {
    std::int32_t q[32];
    codes(block, q);
    AffineBlock::decode(block.d, block.m, q, values);
  }
};

struct Q51 : AffineBlock<5, kQ51Rows> {
  struct Block {
    f16 d, m;
    std::uint8_t qh[4], qs[16];
  };
  static_assert(sizeof(Block) == 24);
  static constexpr const char* kName = "q5_1";
  static constexpr const PerIsa<KeptKernels>& kKept = kQ51Kept;

  static void round(const float* x, const float* params, Block& block) {
    block.d = to_f16(params[0]);
    block.m = to_f16(params[1]);
    put_five_bits([&](int j) { return code(x[j], params); }, block.qh, block.qs);
  }
  static void reround(const float* x, Block& block) { reround_affine<Q51>(x, block); }
  static void codes(const Block& block, std::int32_t* codes) { get_five_bits(block.qh, block.qs, codes); }
  static void decode(const Block& block, float* values) {
    std::int32_t q[32];
    codes(block, q);
    AffineBlock::decode(block.d, block.m, q, values);
  }
};

}  // namespace

CodecPtr make_q4_1() { return std::make_unique<BlockCodec<Q41>>(); }
CodecPtr make_q5_1() { return std::make_unique<BlockCodec<Q51>>(); }

}  // namespace temper::quant
