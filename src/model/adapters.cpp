#include "model/adapters.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"

namespace temper::model {
namespace {

std::vector<Linear> targets(const LoraConfig& config) {
  if (config.target_modules.empty()) return {kLinears.begin(), kLinears.end()};
  std::vector<Linear> out;
  for (const std::string& module : config.target_modules) {
    const auto found = std::find_if(kLinears.begin(), kLinears.end(), [&](Linear l) { return module_name(l) == module; });
    if (found == kLinears.end())
      throw BadRecipe(
          "lora.target_modules: \"{}\" is no projection of this model; expected q_proj, k_proj, v_proj, o_proj, gate_proj, "
          "up_proj, down_proj",
          module);
    out.push_back(*found);
  }
  return out;
}

void require_layers(const LoraConfig& config, int layers) {
  for (const std::int64_t layer : config.layers_to_transform)
    if (layer < 0 || layer >= layers)
      throw BadRecipe("lora.layers_to_transform: there is no layer {}; the model has layers 0 to {}", layer, layers - 1);
}

bool is_adapted(const LoraConfig& config, int layer) {
  const auto& layers = config.layers_to_transform;
  return layers.empty() || std::ranges::find(layers, layer) != layers.end();
}

}  // namespace

std::string_view module_of(const TensorInfo& info) {
  return std::string_view(info.hf_name).substr(0, info.hf_name.size() - std::string_view(".weight").size());
}

std::int64_t LoraConfig::rank_of(std::string_view module) const {
  return pattern_value(rank_pattern, module, r, "rank_pattern");
}

float LoraConfig::scale_of(std::string_view module) const {
  const double rank = static_cast<double>(rank_of(module));
  return static_cast<float>(pattern_value(alpha_pattern, module, alpha, "alpha_pattern") /
                            (rslora ? std::sqrt(rank) : rank));
}

Adapters::Adapters(const TensorTable& table, LoraConfig config, std::uint64_t seed)
    : config_(std::move(config)), seed_(seed) {
  const std::vector<Linear> wanted = targets(config_);
  require_layers(config_, table.layers());
  std::vector<Segment> segments;  // A, B and m of every entry
  std::int64_t rows = 0;
  for (std::size_t i = 0; i < table.size(); ++i) {
    const TensorInfo& info = table[i];
    if (info.role != quant::Role::Linear || !is_adapted(config_, info.layer)) continue;
    const auto linear =
        std::find_if(wanted.begin(), wanted.end(), [&](Linear l) { return table.linear(info.layer, l) == i; });
    if (linear == wanted.end()) continue;
    const std::string_view module = module_of(info);
    const std::int64_t r = config_.rank_of(module);
    if (r < 1 || r > std::min(info.shape[0], info.shape[1]))
      throw BadRecipe("lora.r {}: {} is {}; the rank must be from 1 to {}", r, info.hf_name, info.shape.str(),
                      std::min(info.shape[0], info.shape[1]));
    Entry& entry = entries_.emplace_back();
    entry.tensor = i;
    entry.layer = info.layer;
    entry.linear = *linear;
    entry.scale = config_.scale_of(module);
    segments.push_back({fmt::format("{}.lora_A.weight", module), {r, info.shape[1]}});
    segments.push_back({fmt::format("{}.lora_B.weight", module), {info.shape[0], r}});
    // Decay would draw the whole matrix, not its change, to zero.
    if (config_.dora) segments.push_back({fmt::format("{}.lora_magnitude_vector", module), {info.shape[0]}, false});
    rows += info.shape[0];
  }
  array_ = ParameterArray("adapters", std::move(segments));
  operands_ = Tensor(DType::F32, parameters().shape, true);
  if (config_.dora) norms_ = Tensor(DType::F32, {rows, 1}, true), gains_ = Tensor(DType::F32, {rows, 1}, true);
  rows = 0;
  for (std::size_t e = 0; e < entries_.size(); ++e) {
    fill(e);
    if (!config_.dora) continue;
    const std::int64_t end = rows + entries_[e].b.rows();
    entries_[e].norm = norms_->slice_rows(rows, end);
    entries_[e].gain = gains_->slice_rows(rows, end);
    rows = end;
  }
}

/// Views of an entry, and its first values.
void Adapters::fill(std::size_t e) {
  Entry& entry = entries_[e];
  const std::size_t first = e * parts();
  entry.a = array_.parameter(first);
  entry.b = array_.parameter(first + 1);
  entry.grad_a = array_.gradient(first);
  entry.grad_b = array_.gradient(first + 1);
  if (config_.dora) {
    entry.magnitude = array_.parameter(first + 2);
    entry.grad_magnitude = array_.gradient(first + 2);
  }
  const float bound = static_cast<float>(1.0 / std::sqrt(static_cast<double>(entry.a.cols())));
  Rng rng(seed_, entry.tensor);
  for (float& x : entry.a.span<float>()) x = (2.0f * rng.uniform() - 1.0f) * bound;
  const std::size_t layer = static_cast<std::size_t>(entry.layer);
  if (index_.size() <= layer) index_.resize(layer + 1, {-1, -1, -1, -1, -1, -1, -1});
  index_[layer][static_cast<std::size_t>(entry.linear)] = static_cast<int>(e);
}

std::size_t Adapters::bytes() const {
  std::size_t bytes = array_.parameters().bytes() + array_.gradients().bytes();
  for (const Tensor* tensor : {&operands_, &norms_, &gains_})
    if (*tensor) bytes += (*tensor)->bytes();
  return bytes;
}

const Adapters::Entry* Adapters::find(int layer, Linear linear) const {
  const std::size_t at = static_cast<std::size_t>(layer);
  if (at >= index_.size()) return nullptr;
  const int entry = index_[at][static_cast<std::size_t>(linear)];
  return entry < 0 ? nullptr : &entries_[static_cast<std::size_t>(entry)];
}

const Adapters::Entry* Adapters::find(std::size_t tensor) const {
  const auto entry = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.tensor == tensor; });
  return entry == entries_.end() ? nullptr : &*entry;
}

void Adapters::prepare(const ExecContext& ctx, const BaseWeights& base) {
  if (operands_->dtype != ctx.compute) operands_ = Tensor(ctx.compute, parameters().shape, true);
  ops::convert(ctx, parameters(), operands_);
  for (std::size_t e = 0; e < entries_.size(); ++e) {
    entries_[e].operand_a = array_.piece(operands_, e * parts());
    entries_[e].operand_b = array_.piece(operands_, e * parts() + 1);
  }
  base_ = &base;
  if (config_.dora) prepare_gains(ctx);
}

}  // namespace temper::model
