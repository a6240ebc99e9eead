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
  static constexpr const PerIsa<RowKernels>& kRows = kQ80Rows;
  static constexpr int kBits = 8;

  static float scale(const float* x) {
    float amax = 0;
    for (int j = 0; j < 32; ++j) amax = std::max(amax, std::fabs(x[j]));
    return amax / 127.0f;
  }

  static int code(float x, float id) {
    const float t = x * id;
    if (std::isinf(id) || std::isnan(t)) return 0;
    return static_cast<int>(std::round(std::clamp(t, -127.0f, 127.0f)));
  }

  static void put(Block& block, std::size_t j, int q) { block.qs[j] = static_cast<std::int8_t>(q); }
  static int get(const Block& block, std::size_t j) { return block.qs[j]; }
};

}  // namespace

CodecPtr make_q8_0() { return std::make_unique<BlockCodec<Q80>>(); }

}  // namespace temper::quant
