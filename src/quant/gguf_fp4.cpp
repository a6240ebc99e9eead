// GGUF's mxfp4 and nvfp4 (types 39 and 40), named gguf-mxfp4 and gguf-nvfp4: their blocks and roundings are not those of the
// formats that PyTorch's tools call so (scaled_format.h).
//
//     gguf-mxfp4   | u8 e | u8 qs[16] |       17 bytes for 32   x' = kFp4[q] * 2^(e - 128),   qs as in q4_0
//     gguf-nvfp4   | u8 d[4] | u8 qs[32] |    36 bytes for 64   x' = kFp4[q] * e4m3(d) / 2, four groups of 16, each with 8
//                                                               bytes of qs: elements j and j + 8
//
// kFp4 holds the values of E2M1 doubled. mxfp4: e = floor(log2 max |x|) + 125, as C's log2f and a conversion to 8 bits give
// it, or 0. nvfp4: d = max |x| / 6 in E4M3 without sign, rounded at the next bit; from 256 on it is 448. Codes: the first of
// the nearest values. A tensor-wide scale, which nvfp4 has elsewhere, is no part of a block. Equal to ggml byte for byte.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "quant/block_codec.h"
#include "quant/formats.h"
#include "quant/isa/fp4.h"

namespace temper::quant {
namespace {

constexpr int kFp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

float largest_magnitude(const float* x, int count) {
  float largest = 0;
  for (int i = 0; i < count; ++i) largest = std::max(largest, std::fabs(x[i]));
  return largest;
}

unsigned nearest_code(float x, float scale) {
  unsigned best = 0;
  for (unsigned k = 1; k < 16; ++k)
    if (std::fabs(static_cast<float>(kFp4[k]) * scale - x) < std::fabs(static_cast<float>(kFp4[best]) * scale - x)) best = k;
  return best;
}

struct Mxfp4 {
  struct Block {
    std::uint8_t e, qs[16];
  };
  static_assert(sizeof(Block) == 17);
  static constexpr const char* kName = "gguf-mxfp4";
  static constexpr const PerIsa<RowKernels>& kRows = kGgufMxfp4Rows;
  static constexpr const PerIsa<KeptKernels>& kKept = kGgufMxfp4Kept;
  static constexpr std::size_t kElements = 32, kParams = 1;
  static constexpr int kLow = -12, kHigh = 12;
  static constexpr bool kWeighted = false;

  /// 2^(e - 128), subnormal for 0 and 1.
  static float scale(std::uint32_t e) { return std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23); }

  static bool overflows(const Block&) { return false; }  // exponents reach beyond f32's
  static void fit(const float* x, const float*, float, float* params) {
    const float largest = std::min(largest_magnitude(x, 32), std::numeric_limits<float>::max());
    const int e = largest > 0 ? static_cast<int>(std::floor(std::log2(largest))) + 125 : 0;
    params[0] = static_cast<float>(e & 255);
  }
  static void round(const float* x, const float* params, Block& block) {
    block.e = static_cast<std::uint8_t>(params[0]);
    const float d = scale(block.e);
    for (int j = 0; j < 16; ++j)
      block.qs[j] = static_cast<std::uint8_t>(nearest_code(x[j], d) | nearest_code(x[j + 16], d) << 4);
  }
  static void reround(const float* x, Block& block) {
    const auto e = static_cast<float>(block.e);
    round(x, &e, block);
  }
  static void codes(const Block& block, std::int32_t* codes) {
    for (int j = 0; j < 16; ++j) {
      codes[j] = kFp4[block.qs[j] & 15];
      codes[j + 16] = kFp4[block.qs[j] >> 4];
    }
  }
  static void decode(const Block& block, float* values) {
    std::int32_t q[32];
    codes(block, q);
    for (int j = 0; j < 32; ++j) values[j] = static_cast<float>(q[j]) * scale(block.e);
  }
};

struct Nvfp4 {
  struct Block {
    std::uint8_t d[4], qs[32];
  };
  static_assert(sizeof(Block) == 36);
  static constexpr const char* kName = "gguf-nvfp4";
  static constexpr const PerIsa<RowKernels>& kRows = kGgufNvfp4Rows;
  static constexpr const PerIsa<KeptKernels>& kKept = kGgufNvfp4Kept;
  static constexpr std::size_t kElements = 64, kParams = 4;
  static constexpr int kLow = -12, kHigh = 12;
  static constexpr bool kWeighted = false;

  /// Half the value of an E4M3 number without sign; 127 counts as 0.
  static float scale(unsigned d) {
    const unsigned exponent = d >> 3 & 15, mantissa = d & 7;
    if (d == 0x7f) return 0;
    return exponent == 0 ? static_cast<float>(mantissa) * 0x1p-10f
                         : std::ldexp(1.0f + static_cast<float>(mantissa) / 8.0f, static_cast<int>(exponent) - 8);
  }
  static unsigned stored(float x) {
    if (!(x > 0)) return 0;
    if (x < 0x1p-6f) return std::min(7u, static_cast<unsigned>(x * 512.0f + 0.5f));
    // Three bits of mantissa, the next one rounds; a carry goes into the exponent.
    const std::uint32_t top = (std::bit_cast<std::uint32_t>(std::min(x, 448.0f)) >> 19) + 1;
    const std::uint32_t code = (top >> 1) - (120u << 3);
    return code < 0x78 ? code : 0x7e;  // from 256 on
  }

  static bool overflows(const Block& block) {
    return std::ranges::any_of(block.d, [](std::uint8_t d) { return d >= 0x7e; });
  }
  static void fit(const float* x, const float*, float, float* params) {
    for (int s = 0; s < 4; ++s) params[s] = static_cast<float>(stored(largest_magnitude(x + s * 16, 16) / 6.0f));
  }
  static void round(const float* x, const float* params, Block& block) {
    for (int s = 0; s < 4; ++s, x += 16) {
      block.d[s] = static_cast<std::uint8_t>(params[s]);
      const float d = scale(block.d[s]);
      for (int j = 0; j < 8; ++j)
        block.qs[s * 8 + j] = static_cast<std::uint8_t>(nearest_code(x[j], d) | nearest_code(x[j + 8], d) << 4);
    }
  }
  static void reround(const float* x, Block& block) {
    float params[kParams];
    for (std::size_t s = 0; s < kParams; ++s) params[s] = static_cast<float>(block.d[s]);
    round(x, params, block);
  }
  static void codes(const Block& block, std::int32_t* codes) {
    for (int i = 0; i < 64; ++i) codes[i] = kFp4[block.qs[i / 16 * 8 + i % 8] >> i % 16 / 8 * 4 & 15];
  }
  static void decode(const Block& block, float* values) {
    std::int32_t q[64];
    codes(block, q);
    for (int i = 0; i < 64; ++i) values[i] = static_cast<float>(q[i]) * scale(block.d[i / 16]);
  }
};

}  // namespace

CodecPtr make_gguf_mxfp4() { return std::make_unique<BlockCodec<Mxfp4>>(); }
CodecPtr make_gguf_nvfp4() { return std::make_unique<BlockCodec<Nvfp4>>(); }

}  // namespace temper::quant
