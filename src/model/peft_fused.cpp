#include "model/peft_fused.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>

#include "base/error.h"

namespace temper::model {
namespace {

std::string_view without_weight(std::string_view name) {
  return name.substr(0, name.size() - std::string_view(".weight").size());
}

std::string_view last_part(std::string_view module) { return module.substr(module.rfind('.') + 1); }

/// "qkv_proj" → its parts ("q_proj", …), in the order of their rows.
std::map<std::string, std::vector<std::string>> fused_modules(const TensorTable& table) {
  std::map<std::string, std::vector<std::string>> found;
  for (const Linear linear : kLinears)
    if (const auto& fused = table[table.linear(0, linear)].fused)
      found[std::string(last_part(without_weight(fused->hf_name)))].emplace_back(module_name(linear));
  return found;
}

bool is_target(const LoraConfig& config, std::string_view module) {
  return config.target_modules.empty() || std::ranges::find(config.target_modules, module) != config.target_modules.end();
}

std::vector<std::string> targets_among(const LoraConfig& config, const std::vector<std::string>& parts) {
  std::vector<std::string> found;
  for (const std::string& part : parts)
    if (is_target(config, part)) found.push_back(part);
  return found;
}

/// One adapter has one rank and one scale.
void require_alike(const TensorTable& table, const LoraConfig& config, const std::string& name) {
  const LoraConfig plain{.r = config.r, .alpha = config.alpha, .rslora = config.rslora, .target_modules = {}};
  for (const TensorInfo& info : table.all()) {
    if (!info.fused || last_part(without_weight(info.fused->hf_name)) != name ||
        !is_target(config, last_part(module_of(info))))
      continue;
    const std::string_view module = module_of(info);
    if (config.rank_of(module) != config.r || config.scale_of(module) != plain.scale_of(module))
      throw Unsupported(
          "lora.rank_pattern, lora.alpha_pattern: {} is a part of {}, and peft has one adapter for that; parts of it have "
          "lora.r "
          "and lora.alpha",
          module, name);
  }
}

void copy_block(const TensorView& from, const TensorView& to, std::int64_t first_row, std::int64_t first_column) {
  for (std::int64_t row = 0; row < from.rows(); ++row)
    std::ranges::copy(from.slice_rows(row, row + 1).span<const float>(),
                      to.slice_rows(first_row + row, first_row + row + 1).span<float>().begin() + first_column);
}

/// Copies rows [first_row, …) and columns [first_column, …) of `from` into `to`; true if what else those rows hold is zero.
bool take_block(const TensorView& from, const TensorView& to, std::int64_t first_row, std::int64_t first_column) {
  bool zero = true;
  for (std::int64_t row = 0; row < to.rows(); ++row) {
    const std::span<const float> all = from.slice_rows(first_row + row, first_row + row + 1).span<const float>();
    const auto block = all.subspan(static_cast<std::size_t>(first_column), static_cast<std::size_t>(to.cols()));
    std::ranges::copy(block, to.slice_rows(row, row + 1).span<float>().begin());
    for (std::size_t i = 0; i < all.size(); ++i)
      zero = zero && ((&all[i] >= block.data() && &all[i] < block.data() + block.size()) || all[i] == 0.0f);
  }
  return zero;
}

}  // namespace

std::vector<PeftModule> peft_modules(const TensorTable& table, const Adapters& adapters) {
  std::vector<PeftModule> modules;
  for (const Adapters::Entry& entry : adapters.entries()) {
    const TensorInfo& info = table[entry.tensor];
    const std::string name(info.fused ? without_weight(info.fused->hf_name) : module_of(info));
    if (modules.empty() || modules.back().name != name) modules.push_back({name, {}, {}, info.fused ? info.fused->rows : 0});
    modules.back().parts.push_back(&entry);
    modules.back().first_rows.push_back(info.fused ? info.fused->first_row : 0);
  }
  return modules;
}

PeftTensors::PeftTensors(const PeftModule& module, bool shared) {
  std::int64_t rank = 0;
  for (const Adapters::Entry* part : module.parts) rank = shared ? part->a.rows() : rank + part->a.rows();
  const Adapters::Entry& first = *module.parts.front();
  a = Tensor(DType::F32, {rank, first.a.cols()}, true);
  b = Tensor(DType::F32, {module.rows, rank}, true);
  if (first.magnitude) magnitude = Tensor(DType::F32, {module.rows}, true);
}

PeftTensors join_parts(const PeftModule& module) {
  PeftTensors joined(module, false);
  std::int64_t rank = 0;
  for (std::size_t i = 0; i < module.parts.size(); ++i) {
    const Adapters::Entry& part = *module.parts[i];
    copy_block(part.a, joined.a, rank, 0);
    copy_block(part.b, joined.b, module.first_rows[i], rank);
    if (part.magnitude)
      std::ranges::copy(part.magnitude.span<const float>(), joined.magnitude.span<float>().begin() + module.first_rows[i]);
    rank += part.a.rows();
  }
  return joined;
}

void split_parts(const PeftModule& module, const PeftTensors& stored, bool shared, const std::string& origin) {
  std::int64_t rank = 0;
  for (std::size_t i = 0; i < module.parts.size(); ++i) {
    const Adapters::Entry& part = *module.parts[i];
    take_block(stored.a, part.a, rank, 0);
    if (!take_block(stored.b, part.b, module.first_rows[i], rank))
      throw BadFile("{}: {}: B is not what its parts' adapters were joined to: it has been changed since", origin,
                    module.name);
    if (part.magnitude)
      std::ranges::copy(stored.magnitude.span<const float>().subspan(static_cast<std::size_t>(module.first_rows[i]),
                                                                     static_cast<std::size_t>(part.b.rows())),
                        part.magnitude.span<float>().begin());
    if (!shared) rank += part.a.rows();
  }
}

LoraConfig to_peft_config(const TensorTable& table, LoraConfig config) {
  const LoraConfig own = config;
  const auto fused = fused_modules(table);
  if (!fused.empty() && config.target_modules.empty())
    for (const Linear linear : kLinears) config.target_modules.emplace_back(module_name(linear));
  for (const auto& [name, parts] : fused) {
    const std::vector<std::string> targets = targets_among(own, parts);
    if (targets.empty()) continue;
    require_alike(table, own, name);
    if (own.dora && targets.size() < parts.size())
      throw Unsupported(
          "lora.dora of {} alone: it is stored in {} with others, for which peft has one adapter; name all of {}",
          fmt::join(targets, ", "), name, fmt::join(parts, ", "));
    std::erase_if(config.target_modules,
                  [&](const std::string& module) { return is_target({.target_modules = targets}, module); });
    config.target_modules.push_back(name);
    if (targets.size() == 1) continue;
    const double count = static_cast<double>(targets.size());
    config.rank_pattern.emplace_back(name, own.r * std::ssize(targets));
    config.alpha_pattern.emplace_back(name, own.alpha * (own.rslora ? std::sqrt(count) : count));
  }
  return config;
}

std::string adapted_parts(const TensorTable& table, const LoraConfig& config) {
  std::vector<std::string> adapted;
  for (const auto& [name, parts] : fused_modules(table))
    for (std::string& part : targets_among(config, parts)) adapted.push_back(std::move(part));
  return fmt::format("{}", fmt::join(adapted, ","));
}

LoraConfig from_peft_config(const TensorTable& table, LoraConfig config, const std::optional<std::string>& parts) {
  LoraConfig written{.target_modules = {}};
  std::istringstream list(parts.value_or(""));
  for (std::string part; std::getline(list, part, ',');) written.target_modules.push_back(part);
  for (const auto& [name, all] : fused_modules(table)) {
    if (std::erase(config.target_modules, name) == 0) continue;
    const std::vector<std::string> targets = parts ? targets_among(written, all) : all;
    config.target_modules.insert(config.target_modules.end(), targets.begin(), targets.end());
    const auto translate = [&, &name = name](auto& pattern) {
      auto before = std::exchange(pattern, {});
      for (auto& entry : before) {
        const std::size_t at = entry.first.rfind(name);
        if (at == std::string::npos) {
          pattern.push_back(std::move(entry));
        } else if (!parts) {
          for (const std::string& part : targets) {
            pattern.push_back(entry);
            pattern.back().first.replace(at, name.size(), part);
          }
        }
      }
    };
    translate(config.rank_pattern);
    translate(config.alpha_pattern);
  }
  return config;
}

}  // namespace temper::model
