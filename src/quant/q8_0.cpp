// q8_0 (GGUF type 8): 32 elements in 34 bytes, 8-bit codes and an f16 scale.
//
//     | f16 d | i8 qs[32] |     x' = q * d
//
// d = max |x| / 127; q = x/d with the unrounded d, rounded half away from zero. Equal to ggml byte for byte; extremes as in
// q4_0.
#include <algorithm>
#include <cmath>

#include "quant/block_codec.h"
#include "quant/formats.h"
#include "quant/isa/blocks.h"

namespace temper::quant {
namespace {

struct Q80 {
  struct Block {
    f16 d;
    std::int8_t qs[32];
  };
  static_assert(sizeof(Block) == 34);
  static constexpr const char* kName = "q8_0";
  static constexpr const PerIsa<KeptKernels>& kKept = kQ80Kept;
  static constexpr const PerIsa<RowKernels>& kRows = kQ80Rows;
  static constexpr std::size_t kElements = 32, kParams = 1;
  static constexpr int kLow = -127, kHigh = 127;
  static constexpr bool kWeighted = false, kLearnable = true;

  static void fit(const float* x, const float*, float, float* params) {
    float amax = 0;
    for (int j = 0; j < 32; ++j) amax = std::max(amax, std::fabs(x[j]));
    params[0] = amax / 127.0f;
  }

  static void round(const float* x, const float* params, Block& block) {
    block.d = to_f16(params[0]);
    const float inverse = params[0] != 0.0f ? 1.0f / params[0] : 0.0f;
    for (int j = 0; j < 32; ++j) {
      const float t = x[j] * inverse;
      const bool none = std::isinf(inverse) || std::isnan(t);
      block.qs[j] = static_cast<std::int8_t>(none ? 0.0f : std::round(std::clamp(t, -127.0f, 127.0f)));
    }
  }

  static void reround(const float* x, Block& block) {
    const float d = to_float(block.d);
    if (d != 0.0f) round(x, &d, block);
  }

  static void codes(const Block& block, std::int32_t* codes) { std::ranges::copy(block.qs, codes); }
  static void decode(const Block& block, float* values) {
    for (int j = 0; j < 32; ++j) values[j] = static_cast<float>(block.qs[j]) * to_float(block.d);
  }
};

}  // namespace

CodecPtr make_q8_0() { return std::make_unique<BlockCodec<Q80>>(); }

}  // namespace temper::quant
