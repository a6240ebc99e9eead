// iq4_nl, iq4_xs: see iq4_format.h. Equal to ggml byte for byte, without and with importance.
#include "quant/isa/iq4.h"

#include "quant/block_codec.h"
#include "quant/formats.h"
#include "quant/iq4_format.h"

namespace temper::quant {
namespace {

template <typename Format>
struct TableFormat : Format {
  using Block = typename Format::Block;
  static constexpr std::size_t kElements = Format::kElements, kParams = Format::kParams;
  static constexpr int kLow = kValues[0], kHigh = kValues[15];
  static constexpr bool kWeighted = true;

  static void fit(const float* x, const float* importance, float, float* params) {
    const float energy = energy_of<Format::kElements>(x);
    float scales[kElements / 32], weights[32];
    for (std::size_t i = 0; i < kElements; i += 32) {
      table_weights<float>(x + i, importance ? importance + i : nullptr, energy, weights);
      scales[i / 32] = fit_to_table<32>(x + i, weights);
    }
    Format::finish(scales, params);
  }

  static void reround(const float* x, Block& block) { reround_to_table<Format>(x, block); }

  static void unpack(const std::uint8_t* qs, std::int32_t* codes) {
    for (int j = 0; j < 16; ++j) {
      codes[j] = kValues[qs[j] & 15];
      codes[j + 16] = kValues[qs[j] >> 4];
    }
  }
  static void codes(const Block& block, std::int32_t* codes) {
    for (std::size_t i = 0; i < kElements; i += 32) unpack(block.qs + i / 2, codes + i);
  }
};

struct Nl : TableFormat<Iq4Nl> {
  static constexpr const char* kName = "iq4_nl";
  static constexpr const PerIsa<RowKernels>& kRows = kIq4NlRows;
  static constexpr const PerIsa<SearchKernels>& kSearch = kIq4NlSearch;
  static constexpr const PerIsa<KeptKernels>& kKept = kIq4NlKept;

  static void decode(const Block& block, float* values) {
    std::int32_t q[32];
    codes(block, q);
    for (int j = 0; j < 32; ++j) values[j] = from_half(block.d) * static_cast<float>(q[j]);
  }
};

struct Xs : TableFormat<Iq4Xs> {
  static constexpr const char* kName = "iq4_xs";
  static constexpr const PerIsa<RowKernels>& kRows = kIq4XsRows;
  static constexpr const PerIsa<SearchKernels>& kSearch = kIq4XsSearch;
  static constexpr const PerIsa<KeptKernels>& kKept = kIq4XsKept;

  static void decode(const Block& block, float* values) {
    std::int32_t q[256];
    codes(block, q);
    for (int s = 0; s < 8; ++s) {
      const int scale = (block.scales_l[s / 2] >> s % 2 * 4 & 15) | (block.scales_h >> s * 2 & 3) << 4;
      const float d = from_half(block.d) * static_cast<float>(scale - 32);
      for (int i = s * 32; i < (s + 1) * 32; ++i) values[i] = d * static_cast<float>(q[i]);
    }
  }
};

}  // namespace

CodecPtr make_iq4_nl() { return std::make_unique<BlockCodec<Nl>>(); }
CodecPtr make_iq4_xs() { return std::make_unique<BlockCodec<Xs>>(); }

}  // namespace temper::quant
