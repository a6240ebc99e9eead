#include "quant/llama_mixes.h"

#include <array>

namespace temper::quant {
namespace {

constexpr auto kMixes = std::to_array<LlamaMix>({
    {"q4_0", 2, "q4_0"},
    {"q4_1", 3, "q4_1"},
    {"q8_0", 7, "q8_0"},
    {"q5_0", 8, "q5_0"},
    {"q5_1", 9, "q5_1"},
    {"q2_k", 10, "q2_k"},
    {"q3_k_s", 11, "q3_k"},
    {"q3_k_m", 12, "q3_k"},
    {"q3_k_l", 13, "q3_k"},
    {"q4_k_s", 14, "q4_k"},
    {"q4_k_m", 15, "q4_k"},
    {"q5_k_s", 16, "q5_k"},
    {"q5_k_m", 17, "q5_k"},
    {"q6_k", 18, "q6_k"},
    {"iq4_nl", 25, "iq4_nl"},
    {"iq4_xs", 30, "iq4_xs"},
    {"tq1_0", 36, "tq1_0"},
    {"tq2_0", 37, "tq2_0"},
});

/// The layers that the medium mixes give more bits: the first and last eighths, and every third between.
bool more_bits(int layer, int layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

std::string_view value_type(const LlamaMix& mix, const TensorPlace& p) {
  const std::string_view name = mix.name;
  const bool shared = p.queries_per_key >= 4;
  if (name == "q2_k") return shared ? "q4_k" : "q3_k";
  if (name == "q3_k_m") return p.layer < 2 ? "q5_k" : "q4_k";
  if (name == "q3_k_l") return "q5_k";
  if (mix.base.starts_with("iq4") && shared) return "q5_k";
  if ((name == "q4_k_m" || name == "q5_k_m") && more_bits(p.layer, p.layers)) return "q6_k";
  if (name == "q4_k_s" && p.layer < 4) return "q5_k";
  return mix.base;
}

std::string_view down_type(const LlamaMix& mix, const TensorPlace& p, bool importance) {
  const std::string_view name = mix.name;
  const bool early = p.layer < p.layers / 8;
  if (name == "q2_k") return "q3_k";
  if (name == "q3_k_m") return p.layer < p.layers / 16 ? "q5_k" : "q4_k";
  if (name == "q3_k_l") return "q5_k";
  if ((name == "q4_k_m" || name == "q5_k_m") && more_bits(p.layer, p.layers)) return "q6_k";
  if (mix.base.starts_with("iq4") && early && !importance) return "q5_k";
  if (name == "q4_k_s" && early) return "q5_k";
  if (importance && early && name == "q4_0") return "q4_1";
  if (importance && early && name == "q5_0") return "q5_1";
  return mix.base;
}

/// Of q, k and v in one matrix.
std::string_view fused_type(const LlamaMix& mix) {
  if (mix.name == "q3_k_m" || mix.name == "q3_k_l") return "q4_k";
  if (mix.name == "q4_k_m") return "q5_k";
  return mix.name == "q5_k_m" ? "q6_k" : mix.base;
}

std::string_view output_type(const LlamaMix& mix) {
  if (mix.name == "q2_k") return "q3_k";
  if (mix.name == "q3_k_m") return "q4_k";
  if (mix.name == "q3_k_l") return "q5_k";
  return mix.base;
}

std::string_view chosen(const LlamaMix& mix, const TensorPlace& p, bool importance) {
  if (p.role == Role::Head || (p.role == Role::Embedding && p.tied))
    return mix.base == "q8_0" || !find_codec(mix.base)->fits(p.cols) ? "q8_0" : "q6_k";
  if (p.role == Role::Embedding) return mix.base.starts_with("tq") ? "q4_k" : mix.base;
  switch (p.projection) {
    case Projection::Q:
    case Projection::K: return p.fused ? fused_type(mix) : mix.base;
    case Projection::V: {
      if (p.fused) return fused_type(mix);
      const std::string_view type = value_type(mix, p);
      constexpr int kLayersOf70B = 80;  // whose values are small beside the rest
      return p.layers == kLayersOf70B && (type == "q3_k" || type == "q4_k") ? "q5_k" : type;
    }
    case Projection::Down: return down_type(mix, p, importance);
    case Projection::O: return output_type(mix);
    default: return mix.base;
  }
}

}  // namespace

std::span<const LlamaMix> llama_mixes() { return kMixes; }

const Codec* mix_codec(const LlamaMix& mix, const TensorPlace& place, bool importance) {
  return place.role == Role::Norm ? nullptr : find_codec(chosen(mix, place, importance));
}

}  // namespace temper::quant
