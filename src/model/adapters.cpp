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

/// Places pieces in a flat array, each on a cache line of its own.
struct Layout {
  std::int64_t size = 0;
  std::int64_t place(std::int64_t n) {
    const std::int64_t at = size;
    size += (n + 15) / 16 * 16;
    return at;
  }
};

TensorView piece(const TensorView& flat, std::int64_t offset, const Shape& shape) {
  return TensorView(static_cast<std::byte*>(flat.data) + static_cast<std::size_t>(offset) * dtype_size(flat.dtype),
                    flat.dtype, shape);
}

}  // namespace

float LoraConfig::scale() const {
  const double rank = static_cast<double>(r);
  return static_cast<float>(alpha / (rslora ? std::sqrt(rank) : rank));
}

Adapters::Adapters(const TensorTable& table, LoraConfig config, std::uint64_t seed) : config_(std::move(config)) {
  const std::vector<Linear> wanted = targets(config_);
  struct Place {
    std::int64_t a, b;
  };
  std::vector<Place> places;
  Layout layout;
  for (std::size_t i = 0; i < table.size(); ++i) {
    const TensorInfo& info = table[i];
    if (info.role != quant::Role::Linear) continue;
    const auto linear =
        std::find_if(wanted.begin(), wanted.end(), [&](Linear l) { return table.linear(info.layer, l) == i; });
    if (linear == wanted.end()) continue;
    if (config_.r < 1 || config_.r > std::min(info.shape[0], info.shape[1]))
      throw BadRecipe("lora.r {}: {} is {}; the rank must be from 1 to {}", config_.r, info.hf_name, info.shape.str(),
                      std::min(info.shape[0], info.shape[1]));
    entries_.push_back({i, info.layer, *linear, {}, {}, {}, {}, {}, {}});
    places.push_back({layout.place(config_.r * info.shape[1]), layout.place(info.shape[0] * config_.r)});
  }
  parameters_ = Tensor(DType::F32, {layout.size}, true);
  gradients_ = Tensor(DType::F32, {layout.size}, true);
  operands_ = Tensor(DType::F32, {layout.size}, true);
  for (std::size_t e = 0; e < entries_.size(); ++e) {
    Entry& entry = entries_[e];
    const Shape& shape = table[entry.tensor].shape;
    const Shape a{config_.r, shape[1]}, b{shape[0], config_.r};
    entry.a = piece(parameters_, places[e].a, a);
    entry.b = piece(parameters_, places[e].b, b);
    entry.grad_a = piece(gradients_, places[e].a, a);
    entry.grad_b = piece(gradients_, places[e].b, b);
    const float bound = static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape[1])));
    Rng rng(seed, entry.tensor);
    for (float& x : entry.a.span<float>()) x = (2.0f * rng.uniform() - 1.0f) * bound;
    const std::size_t layer = static_cast<std::size_t>(entry.layer);
    if (index_.size() <= layer) index_.resize(layer + 1, {-1, -1, -1, -1, -1, -1, -1});
    index_[layer][static_cast<std::size_t>(entry.linear)] = static_cast<int>(e);
  }
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

void Adapters::prepare(const ExecContext& ctx) {
  if (operands_->dtype != ctx.compute) operands_ = Tensor(ctx.compute, parameters_->shape, true);
  ops::convert(ctx, parameters_, operands_);
  const float* base = parameters_->as<float>();
  for (Entry& entry : entries_) {
    entry.operand_a = piece(operands_, entry.a.as<float>() - base, entry.a.shape);
    entry.operand_b = piece(operands_, entry.b.as<float>() - base, entry.b.shape);
  }
}

}  // namespace temper::model
