// Static ranges of a model's activations: where a scheme asks for them, and how a run's folder keeps them.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "model/taps.h"
#include "model/weights.h"

namespace temper::model {

/// Something whose range is given: the input that some projections (or the head) share, or the output of one.
struct RangeSite {
  std::string name;  ///< "model.layers.0.self_attn.q_proj input": that of the first of its tensors.
  int layer = -1;    ///< -1: the head's input.
  bool output = false;
  LinearInput input = LinearInput::Head;  ///< Of inputs,
  Linear linear = Linear::Q;              ///< of outputs.
  const quant::Codec* codec = nullptr;
  std::vector<std::size_t> tensors;  ///< Whose products go by it, by index in the table; they round it to the same format.
};
std::vector<RangeSite> range_sites(const EncodedWeights& weights);

/// True if a scheme rounds some activation of these tensors to a format whose range is given.
bool needs_ranges(const TensorTable& table, const quant::Scheme& scheme);

/// The range as its tensors have it, or not known.
quant::StaticRange range_of(const EncodedWeights& weights, const RangeSite& site);
void set_range(EncodedWeights& weights, const RangeSite& site, const quant::StaticRange& range);

/// ranges.safetensors of a run's folder: for each tensor "….input_scale" or "….output_scale" F32 [1], and "…_zero_point" I32
/// [1] in asymmetric formats.
inline constexpr const char* kRangesName = "ranges.safetensors";
void save_ranges(const EncodedWeights& weights, const std::filesystem::path& path);
/// Throws BadFile naming file and tensor where one is missing or no range.
void restore_ranges(const std::filesystem::path& path, EncodedWeights& weights);

}  // namespace temper::model
