// tq1_0 and tq2_0 (GGUF types 34 and 35): 256 elements of -1, 0 or 1 with an f16 scale.
//
//     tq1_0   | u8 qs[48] | u8 qh[4] | f16 d |   54 bytes
//     tq2_0   | u8 qs[64] | f16 d |              66 bytes     x' = (q - 1) * d
//
// d = max |x|, q = 1 + x/d rounded half away from zero. tq2_0: byte m of 32 holds elements m, m + 32, m + 64 and m + 96, two
// bits each. tq1_0: five elements to a byte, as the fraction t / 243 in 256ths, rounded up, with t of base 3, first element
// in the top digit, so that multiplying by 3 shifts the next digit out: 32 bytes hold elements m + 32n, 16 hold 160 + m +
// 16n, 4 hold 240 + m + 4n (only four digits). Equal to ggml byte for byte; importance is ignored, as there.
#include "quant/isa/ternary.h"

#include <algorithm>
#include <cmath>

#include "quant/block_codec.h"
#include "quant/formats.h"

namespace temper::quant {
namespace {

struct Ternary {
  static constexpr std::size_t kElements = 256, kParams = 1;
  static constexpr int kLow = -1, kHigh = 1;
  static constexpr bool kWeighted = false;

  static void fit(const float* x, const float*, float, float* params) {
    params[0] = 0;
    for (std::size_t i = 0; i < kElements; ++i) params[0] = std::max(params[0], std::fabs(x[i]));
  }
  /// 0, 1 or 2.
  static unsigned code(float x, float d) {
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f, t = x * inverse;
    if (!std::isfinite(t)) return 1;
    return static_cast<unsigned>(static_cast<int>(std::round(std::clamp(t, -1.0f, 1.0f))) + 1);
  }
};

/// Rounds with the stored d, unless no code changes a value.
template <typename Format>
void reround_ternary(const float* x, typename Format::Block& block) {
  const float d = to_float(block.d);
  if (d != 0.0f) Format::round(x, &d, block);
}

struct Tq1 : Ternary {
  struct Block {
    std::uint8_t qs[48], qh[4];
    f16 d;
  };
  static_assert(sizeof(Block) == 54);
  static constexpr const char* kName = "tq1_0";
  static constexpr const PerIsa<RowKernels>& kRows = kTq1Rows;

  /// A run of `bytes` whose digits are `bytes` elements apart, from element `first` on.
  struct Run {
    int bytes, digits, first;
  };
  static constexpr Run kRuns[3] = {{32, 5, 0}, {16, 5, 160}, {4, 4, 240}};

  static void round(const float* x, const float* params, Block& block) {
    block.d = to_f16(params[0]);
    std::uint8_t all[52], *out = all;
    for (const Run& run : kRuns)
      for (int m = 0; m < run.bytes; ++m) {
        unsigned t = 0;
        for (int n = 0; n < 5; ++n) t = t * 3 + (n < run.digits ? code(x[run.first + m + n * run.bytes], params[0]) : 0u);
        *out++ = static_cast<std::uint8_t>((t * 256 + 242) / 243);
      }
    std::memcpy(block.qs, all, 48);
    std::memcpy(block.qh, all + 48, 4);
  }
  static void reround(const float* x, Block& block) { reround_ternary<Tq1>(x, block); }
  static void codes(const Block& block, std::int32_t* codes) {
    const std::uint8_t* in = block.qs;
    for (const Run& run : kRuns) {
      if (run.bytes == 4) in = block.qh;
      for (int m = 0; m < run.bytes; ++m) {
        std::uint8_t fraction = *in++;
        for (int n = 0; n < run.digits; ++n) {
          codes[run.first + m + n * run.bytes] = (fraction * 3 >> 8) - 1;
          fraction = static_cast<std::uint8_t>(fraction * 3);
        }
      }
    }
  }
  static void decode(const Block& block, float* values) {
    std::int32_t q[256];
    codes(block, q);
    for (int i = 0; i < 256; ++i) values[i] = static_cast<float>(q[i]) * to_float(block.d);
  }
};

struct Tq2 : Ternary {
  struct Block {
    std::uint8_t qs[64];
    f16 d;
  };
  static_assert(sizeof(Block) == 66);
  static constexpr const char* kName = "tq2_0";
  static constexpr const PerIsa<RowKernels>& kRows = kTq2Rows;

  static void round(const float* x, const float* params, Block& block) {
    block.d = to_f16(params[0]);
    for (int j = 0; j < 64; ++j) {
      const float* element = x + j / 32 * 128 + j % 32;
      unsigned byte = 0;
      for (int n = 0; n < 4; ++n) byte |= code(element[n * 32], params[0]) << 2 * n;
      block.qs[j] = static_cast<std::uint8_t>(byte);
    }
  }
  static void reround(const float* x, Block& block) { reround_ternary<Tq2>(x, block); }
  static void codes(const Block& block, std::int32_t* codes) {
    for (int i = 0; i < 256; ++i) codes[i] = (block.qs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3) - 1;
  }
  static void decode(const Block& block, float* values) {
    std::int32_t q[256];
    codes(block, q);
    for (int i = 0; i < 256; ++i) values[i] = static_cast<float>(q[i]) * to_float(block.d);
  }
};

}  // namespace

CodecPtr make_tq1_0() { return std::make_unique<BlockCodec<Tq1>>(); }
CodecPtr make_tq2_0() { return std::make_unique<BlockCodec<Tq2>>(); }

}  // namespace temper::quant
