// Blocks of 32 elements with an f16 scale: q4_0 and q5_0 (GGUF types 2 and 6).
//
//     q4_0   | f16 d |            u8 qs[16] |   18 bytes   x' = (q - 8) * d,   qs[j] = low4(q[j]) | low4(q[j + 16]) << 4
//     q5_0   | f16 d | u8 qh[4] | u8 qs[16] |   22 bytes   x' = (q - 16) * d;  bit 4 of element j is bit j of qh
//
// d = m / -8 or -16, with m the signed value of the first largest magnitude, so that m itself is code 0; q = min(15,
// trunc(x/d + 8.5)) with the unrounded d. With importance: a search (search.h), whose codes come from the step it tried.
// Equal to ggml byte for byte, at the extremes too: where 1/d overflows, every code is 0 (as x86 converts what is out of
// range) and d is stored as 0; where d overflows f16, it is stored as infinity and the block decodes to infinities and NaN.
#include <cmath>

#include "quant/block_codec.h"
#include "quant/five_bits.h"
#include "quant/formats.h"
#include "quant/isa/blocks.h"
#include "quant/search.h"

namespace temper::quant {
namespace {

/// Parameters: d, the step of the search; a step of 0 stands for the plain rule. Codes are -kHalf … kHalf - 1, stored from
/// 0.
template <int kHalf, const PerIsa<RowKernels>& kernels>
struct SymmetricBlock {
  static constexpr const PerIsa<RowKernels>& kRows = kernels;
  static constexpr std::size_t kElements = 32, kParams = 2;
  static constexpr int kLow = -kHalf, kHigh = kHalf - 1;
  static constexpr bool kWeighted = true, kLearnable = true;

  static void fit(const float* x, const float* importance, float energy, float* params) {
    params[0] = first_largest_of<32>(x) / static_cast<float>(kLow);
    params[1] = 0;
    if (!importance) return;
    float weights[32];
    weigh<32>(x, importance, energy, weights);
    const SymmetricFit<float> found = fit_symmetric<32>(x, weights, kHalf);
    params[0] = found.scale;
    params[1] = found.step;
  }

  static int code(float x, const float* params) {
    if (params[1] != 0) return searched_code(x, params[1], 0, kLow, kHigh);
    const float inverse = params[0] != 0.0f ? 1.0f / params[0] : 0.0f, t = x * inverse + (static_cast<float>(kHalf) + 0.5f);
    if (std::isinf(inverse) || !(t >= 0.0f)) return 0;
    return t < static_cast<float>(kHigh - kLow) ? static_cast<int>(t) : kHigh - kLow;
  }

  static void decode(f16 d, const std::int32_t* codes, float* values) {
    for (int j = 0; j < 32; ++j) values[j] = static_cast<float>(codes[j]) * to_float(d);
  }
};

/// Rounds with the stored d, unless no code changes a value.
template <typename Format>
void reround_symmetric(const float* x, typename Format::Block& block) {
  const float params[2] = {to_float(block.d), 0};
  if (params[0] != 0.0f) Format::round(x, params, block);
}

struct Q40 : SymmetricBlock<8, kQ40Rows> {
  struct Block {
    f16 d;
    std::uint8_t qs[16];
  };
  static_assert(sizeof(Block) == 18);
  static constexpr const char* kName = "q4_0";
  static constexpr const PerIsa<KeptKernels>& kKept = kQ40Kept;

  static void round(const float* x, const float* params, Block& block) {
    block.d = to_f16(params[0]);
    for (int j = 0; j < 16; ++j) block.qs[j] = static_cast<std::uint8_t>(code(x[j], params) | code(x[j + 16], params) << 4);
  }
  static void reround(const float* x, Block& block) { reround_symmetric<Q40>(x, block); }
  static void codes(const Block& block, std::int32_t* codes) {
    for (int j = 0; j < 16; ++j) {
      codes[j] = (block.qs[j] & 15) - 8;
      codes[j + 16] = (block.qs[j] >> 4) - 8;
    }
  }
  static void decode(const Block& block, float* values) {
    std::int32_t q[32];
    codes(block, q);
    SymmetricBlock::decode(block.d, q, values);
  }
};

struct Q50 : SymmetricBlock<16, kQ50Rows> {
  struct Block {
    f16 d;
    std::uint8_t qh[4], qs[16];
  };
  static_assert(sizeof(Block) == 22);
  static constexpr const char* kName = "q5_0";
  static constexpr const PerIsa<KeptKernels>& kKept = kQ50Kept;

  static void round(const float* x, const float* params, Block& block) {
    block.d = to_f16(params[0]);
    put_five_bits([&](int j) { return code(x[j], params); }, block.qh, block.qs);
  }
  static void reround(const float* x, Block& block) { reround_symmetric<Q50>(x, block); }
  static void codes(const Block& block, std::int32_t* codes) {
    get_five_bits(block.qh, block.qs, codes);
    for (int j = 0; j < 32; ++j) codes[j] -= 16;
  }
  static void decode(const Block& block, float* values) {
    std::int32_t q[32];
    codes(block, q);
    SymmetricBlock::decode(block.d, q, values);
  }
};

}  // namespace

CodecPtr make_q4_0() { return std::make_unique<BlockCodec<Q40>>(); }
CodecPtr make_q5_0() { return std::make_unique<BlockCodec<Q50>>(); }

}  // namespace temper::quant
