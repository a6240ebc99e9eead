#include "quant/fallback.h"

#include <array>

#include "quant/scaled_codec.h"

namespace temper::quant {
namespace {

constexpr std::array<std::pair<std::string_view, std::string_view>, 8> kLlamaFallbacks = {{{"q2_k", "q4_0"},
                                                                                           {"q3_k", "q4_0"},
                                                                                           {"tq1_0", "q4_0"},
                                                                                           {"tq2_0", "q4_0"},
                                                                                           {"q4_k", "q5_0"},
                                                                                           {"q5_k", "q5_1"},
                                                                                           {"q6_k", "q8_0"},
                                                                                           {"iq4_xs", "iq4_nl"}}};

}  // namespace

const Codec* fallback_for(const Codec& codec, std::int64_t cols) {
  if (codec.fits(cols)) return &codec;
  for (const auto& [from, to] : kLlamaFallbacks)
    if (from == codec.name()) return find_codec(to);
  const ScaledCodec* scaled = as_scaled(&codec);
  if (!scaled || !scaled->format().integer()) return &codec;
  const std::string name(codec.name()), group = fmt::format("-g{}", codec.group());
  for (const std::int64_t smaller : {128, 64, 32}) {
    if (smaller >= codec.group() || cols <= 0 || cols % smaller != 0) continue;
    return find_codec(std::string(name).replace(name.find(group), group.size(), fmt::format("-g{}", smaller)));
  }
  return &codec;
}

}  // namespace temper::quant
