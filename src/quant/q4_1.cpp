// q4_1 (GGUF type 3), read only: 32 elements in 20 bytes.
//
//     | f16 d | f16 m | u8 qs[16] |     qs[j] = q[j] | q[j + 16] << 4,   x' = q * d + m
#include "quant/formats.h"
#include "quant/isa/blocks.h"
#include "quant/read_only_codec.h"

namespace temper::quant {
namespace {

struct Q41 {
  struct Block {
    f16 d, m;
    std::uint8_t qs[16];
  };
  static_assert(sizeof(Block) == 20);
  static constexpr const char* kName = "q4_1";
  static constexpr const PerIsa<RowKernels>& kRows = kQ41Rows;
  static constexpr std::size_t kElements = 32;

  static void unpack(const Block& block, std::int32_t* codes) {
    for (int j = 0; j < 16; ++j) {
      codes[j] = block.qs[j] & 15;
      codes[j + 16] = block.qs[j] >> 4;
    }
  }
  static void decode(const Block& block, const std::int32_t* codes, float* values) {
    const float d = to_float(block.d), m = to_float(block.m);
    for (std::size_t j = 0; j < kElements; ++j) values[j] = static_cast<float>(codes[j]) * d + m;
  }
};

}  // namespace

CodecPtr make_q4_1() { return std::make_unique<ReadOnlyCodec<Q41>>(); }

}  // namespace temper::quant
