// q4_k, q5_k, q6_k (GGUF types 12, 13, 14), read only: superblocks of 256 elements whose sub-blocks have small integer
// scales.
//
//     q4_k   | f16 d | f16 dmin | u8 scales[12] |            u8 qs[128] |  144 bytes   x' = (d * sc) * q - dmin * mn
//     q5_k   | f16 d | f16 dmin | u8 scales[12] | u8 qh[32] | u8 qs[128] |  176 bytes   the same
//     q6_k   | u8 ql[128] | u8 qh[64] | i8 scales[16] | f16 d |             210 bytes   x' = d * sc * (q - 32)
//
// q4_k, q5_k: 8 sub-blocks of 32, each with a 6-bit scale and minimum. 32 bytes of qs hold 64 elements: low nibbles the
// first 32, high ones the next. qh byte l holds bit 4 of element l of each sub-block s, as bit s. q6_k: 16 sub-blocks of 16.
// Half a superblock (128 elements, four quarters of 32) takes 64 bytes of ql and 32 of qh: quarters 0 and 1 are the low
// nibbles of ql, 2 and 3 the high ones; qh holds bits 4 and 5, two bits per quarter.
#include "quant/isa/k_quants.h"

#include "quant/formats.h"
#include "quant/read_only_codec.h"

namespace temper::quant {
namespace {

constexpr int kSuper = 256;

struct ScaleMin {
  int scale, minimum;
};

/// The 6-bit scale and minimum of sub-block s. Sub-blocks 0–3 use the low six bits of bytes s and s + 4; the others have
/// their low four bits in byte s + 4 and their upper two in the top of bytes s - 4 and s.
ScaleMin scale_min(const std::uint8_t* q, int s) {
  if (s < 4) return {q[s] & 63, q[s + 4] & 63};
  return {(q[s + 4] & 15) | (q[s - 4] >> 6) << 4, (q[s + 4] >> 4) | (q[s] >> 6) << 4};
}

void unpack_nibbles(const std::uint8_t* qs, std::int32_t* codes) {
  for (int pair = 0; pair < 4; ++pair)
    for (int l = 0; l < 32; ++l) {
      codes[pair * 64 + l] = qs[pair * 32 + l] & 15;
      codes[pair * 64 + 32 + l] = qs[pair * 32 + l] >> 4;
    }
}

void decode_affine(f16 d, f16 dmin, const std::uint8_t* scales, const std::int32_t* codes, float* values) {
  for (int s = 0; s < 8; ++s) {
    const ScaleMin sm = scale_min(scales, s);
    const float scale = to_float(d) * static_cast<float>(sm.scale),
                minimum = to_float(dmin) * static_cast<float>(sm.minimum);
    for (int l = 0; l < 32; ++l) values[s * 32 + l] = scale * static_cast<float>(codes[s * 32 + l]) - minimum;
  }
}

struct Q4K {
  struct Block {
    f16 d, dmin;
    std::uint8_t scales[12], qs[128];
  };
  static_assert(sizeof(Block) == 144);
  static constexpr const char* kName = "q4_k";
  static constexpr const PerIsa<RowKernels>& kRows = kQ4KRows;
  static constexpr std::size_t kElements = kSuper;

  static void unpack(const Block& block, std::int32_t* codes) { unpack_nibbles(block.qs, codes); }
  static void decode(const Block& block, const std::int32_t* codes, float* values) {
    decode_affine(block.d, block.dmin, block.scales, codes, values);
  }
};

struct Q5K {
  struct Block {
    f16 d, dmin;
    std::uint8_t scales[12], qh[32], qs[128];
  };
  static_assert(sizeof(Block) == 176);
  static constexpr const char* kName = "q5_k";
  static constexpr const PerIsa<RowKernels>& kRows = kQ5KRows;
  static constexpr std::size_t kElements = kSuper;

  static void unpack(const Block& block, std::int32_t* codes) {
    unpack_nibbles(block.qs, codes);
    for (int s = 0; s < 8; ++s)
      for (int l = 0; l < 32; ++l) codes[s * 32 + l] += (block.qh[l] >> s & 1) << 4;
  }
  static void decode(const Block& block, const std::int32_t* codes, float* values) {
    decode_affine(block.d, block.dmin, block.scales, codes, values);
  }
};

struct Q6K {
  struct Block {
    std::uint8_t ql[128], qh[64];
    std::int8_t scales[16];
    f16 d;
  };
  static_assert(sizeof(Block) == 210);
  static constexpr const char* kName = "q6_k";
  static constexpr const PerIsa<RowKernels>& kRows = kQ6KRows;
  static constexpr std::size_t kElements = kSuper;

  static void unpack(const Block& block, std::int32_t* codes) {
    for (int quarter = 0; quarter < 8; ++quarter) {
      const std::uint8_t* ql = block.ql + quarter / 4 * 64 + quarter % 2 * 32;
      const std::uint8_t* qh = block.qh + quarter / 4 * 32;
      const int low_shift = quarter % 4 / 2 * 4, high_shift = quarter % 4 * 2;
      for (int l = 0; l < 32; ++l)
        codes[quarter * 32 + l] = ((ql[l] >> low_shift & 15) | (qh[l] >> high_shift & 3) << 4) - 32;
    }
  }
  static void decode(const Block& block, const std::int32_t* codes, float* values) {
    const float d = to_float(block.d);
    for (int s = 0; s < 16; ++s) {
      const float scale = d * static_cast<float>(block.scales[s]);
      for (int i = s * 16; i < (s + 1) * 16; ++i) values[i] = scale * static_cast<float>(codes[i]);
    }
  }
};

}  // namespace

CodecPtr make_q4_k() { return std::make_unique<ReadOnlyCodec<Q4K>>(); }
CodecPtr make_q5_k() { return std::make_unique<ReadOnlyCodec<Q5K>>(); }
CodecPtr make_q6_k() { return std::make_unique<ReadOnlyCodec<Q6K>>(); }

}  // namespace temper::quant
