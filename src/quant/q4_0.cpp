// q4_0 (GGUF type 2): 32 elements in 18 bytes, 4-bit codes and an f16 scale.
//
//     | f16 d | u8 qs[16] |     qs[j] = q[j] | q[j + 16] << 4,   x' = (q - 8) * d
//
// d = m / -8, with m the signed value of the first largest magnitude, so that m itself is code 0; q = min(15, trunc(x/d
// + 8.5)) with the unrounded d. Equal to ggml byte for byte, at the extremes too: where 1/d overflows, every code is 0 (as
// x86 converts what is out of range) and d is stored as 0; where d overflows f16, it is stored as infinity and the block
// decodes to infinities and NaN.
#include <algorithm>
#include <cmath>

#include "quant/block_codec.h"
#include "quant/formats.h"
#include "quant/isa/blocks.h"

namespace temper::quant {
namespace {

struct Q40 {
  struct Block {
    f16 d;
    std::uint8_t qs[16];
  };
  static_assert(sizeof(Block) == 18);

  static constexpr const char* kName = "q4_0";
  static constexpr const PerIsa<RowKernels>& kRows = kQ40Rows;
  static constexpr int kBits = 4;

  static float scale(const float* x) {
    float largest = 0;
    for (int j = 0; j < 32; ++j)
      if (std::fabs(x[j]) > std::fabs(largest)) largest = x[j];
    return largest / -8.0f;
  }

  static int code(float x, float id) {
    const float t = x * id + 8.5f;
    if (std::isinf(id) || !(t >= 0.0f)) return 0;
    return t < 15.0f ? static_cast<int>(t) : 15;
  }

  static void put(Block& block, std::size_t j, int q) {
    block.qs[j % 16] = static_cast<std::uint8_t>(block.qs[j % 16] | (j < 16 ? q : q << 4));
  }
  static int get(const Block& block, std::size_t j) { return (j < 16 ? block.qs[j] & 15 : block.qs[j - 16] >> 4) - 8; }
};

}  // namespace

CodecPtr make_q4_0() { return std::make_unique<BlockCodec<Q40>>(); }

}  // namespace temper::quant
