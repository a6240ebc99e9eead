// q5_0 and q5_1 (GGUF types 6 and 7), read only: 32 elements of 5 bits in 22 and 24 bytes. Bit 4 of element j is bit j of
// qh.
//
//     q5_0   | f16 d |         u8 qh[4] | u8 qs[16] |     x' = (q - 16) * d
//     q5_1   | f16 d | f16 m | u8 qh[4] | u8 qs[16] |     x' = q * d + m
//     qs[j] = low4(q[j]) | low4(q[j + 16]) << 4
#include "quant/formats.h"
#include "quant/isa/blocks.h"
#include "quant/read_only_codec.h"

namespace temper::quant {
namespace {

void unpack_q5(const std::uint8_t* qh, const std::uint8_t* qs, int offset, std::int32_t* codes) {
  std::uint32_t high;
  std::memcpy(&high, qh, sizeof(high));
  for (int j = 0; j < 16; ++j) {
    codes[j] = static_cast<std::int32_t>((qs[j] & 15u) | (high >> j & 1u) << 4) - offset;
    codes[j + 16] = static_cast<std::int32_t>((qs[j] >> 4) | (high >> (j + 16) & 1u) << 4) - offset;
  }
}

struct Q50 {
  struct Block {
    f16 d;
    std::uint8_t qh[4], qs[16];
  };
  static_assert(sizeof(Block) == 22);
  static constexpr const char* kName = "q5_0";
  static constexpr const PerIsa<RowKernels>& kRows = kQ50Rows;
  static constexpr std::size_t kElements = 32;

  static void unpack(const Block& block, std::int32_t* codes) { unpack_q5(block.qh, block.qs, 16, codes); }
  static void decode(const Block& block, const std::int32_t* codes, float* values) {
    const float d = to_float(block.d);
    for (std::size_t j = 0; j < kElements; ++j) values[j] = static_cast<float>(codes[j]) * d;
  }
};

struct Q51 {
  struct Block {
    f16 d, m;
    std::uint8_t qh[4], qs[16];
  };
  static_assert(sizeof(Block) == 24);
  static constexpr const char* kName = "q5_1";
  static constexpr const PerIsa<RowKernels>& kRows = kQ51Rows;
  static constexpr std::size_t kElements = 32;

  static void unpack(const Block& block, std::int32_t* codes) { unpack_q5(block.qh, block.qs, 0, codes); }
  static void decode(const Block& block, const std::int32_t* codes, float* values) {
    const float d = to_float(block.d), m = to_float(block.m);
    for (std::size_t j = 0; j < kElements; ++j) values[j] = static_cast<float>(codes[j]) * d + m;
  }
};

}  // namespace

CodecPtr make_q5_0() { return std::make_unique<ReadOnlyCodec<Q50>>(); }
CodecPtr make_q5_1() { return std::make_unique<ReadOnlyCodec<Q51>>(); }

}  // namespace temper::quant
