#include "train/lora_options.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "base/error.h"
#include "model/module_pattern.h"

namespace temper::train {
namespace {

/// All of the text as a number.
template <typename Value>
bool parse(std::string_view text, Value& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

/// "q_proj=8" for each element.
template <typename Value>
model::ModulePattern<Value> parse_pattern(const std::vector<std::string>& items, std::string_view option) {
  constexpr Value kMost = 10'000'000;
  model::ModulePattern<Value> pattern;
  for (const std::string& item : items) {
    const std::size_t equals = item.rfind('=');
    Value value{};
    if (equals == std::string::npos || equals == 0 || !parse(std::string_view(item).substr(equals + 1), value) ||
        !(value > 0 && value < kMost))
      throw BadRecipe("{}: expected NAME=VALUE with a value above 0, q_proj=8 say, found \"{}\"", option, item);
    pattern.emplace_back(item.substr(0, equals), value);
  }
  return pattern;
}

template <typename Value>
std::vector<std::string> pattern_text(const model::ModulePattern<Value>& pattern) {
  std::vector<std::string> items;
  for (const auto& [key, value] : pattern) items.push_back(fmt::format("{}={}", key, value));
  return items;
}

/// "3" and "5-8".
std::vector<std::int64_t> parse_layers(const std::vector<std::string>& items) {
  constexpr std::int64_t kMost = 100000;
  std::vector<std::int64_t> layers;
  for (const std::string& item : items) {
    const std::string_view text = item;
    const std::size_t dash = text.find('-');
    std::int64_t first = 0, last = 0;
    const bool read = dash == std::string_view::npos
                          ? parse(text, first) && parse(text, last)
                          : parse(text.substr(0, dash), first) && parse(text.substr(dash + 1), last);
    if (!read || first < 0 || last < first || last > kMost)
      throw BadRecipe("lora.layers_to_transform: expected layers such as 0 or 2-5, found \"{}\"", item);
    for (std::int64_t layer = first; layer <= last; ++layer) layers.push_back(layer);
  }
  std::ranges::sort(layers);
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  return layers;
}

template <typename Value>
void require_used(const model::ModulePattern<Value>& pattern, std::string_view option, const model::TensorTable& table,
                  const model::Adapters& adapters) {
  for (const auto& item : pattern) {
    const std::string& key = item.first;
    const bool used = std::ranges::any_of(adapters.entries(), [&](const model::Adapters::Entry& entry) {
      return model::matches_module(key, model::module_of(table[entry.tensor]));
    });
    if (!used)
      throw BadRecipe("{}: \"{}\" matches no adapted matrix; their names are such as q_proj or {}", option, key,
                      model::module_of(table[table.linear(0, model::Linear::Q)]));
  }
}

}  // namespace

model::LoraConfig lora_config(const recipe::LoraOptions& options) {
  if (options.r < 1)
    throw BadRecipe("lora.r: expected at least 1, found {}: give train.mode full to train all weights", options.r);
  model::LoraConfig config;
  config.r = options.r;
  config.alpha = options.alpha;
  config.rslora = options.rslora;
  config.dora = options.dora;
  config.dropout = options.dropout;
  config.target_modules = options.target_modules;
  config.bias = static_cast<model::LoraBias>(options.bias);
  config.modules_to_save = options.modules_to_save;
  config.rank_pattern = parse_pattern<std::int64_t>(options.rank_pattern, "lora.rank_pattern");
  config.alpha_pattern = parse_pattern<double>(options.alpha_pattern, "lora.alpha_pattern");
  config.layers_to_transform = parse_layers(options.layers_to_transform);
  return config;
}

recipe::LoraOptions lora_options(const model::LoraConfig& config) {
  recipe::LoraOptions options;
  options.r = config.r;
  options.alpha = config.alpha;
  options.rslora = config.rslora;
  options.dora = config.dora;
  options.dropout = config.dropout;
  if (!config.target_modules.empty()) options.target_modules = config.target_modules;
  options.bias = static_cast<recipe::LoraBias>(config.bias);
  options.modules_to_save = config.modules_to_save;
  options.rank_pattern = pattern_text(config.rank_pattern);
  options.alpha_pattern = pattern_text(config.alpha_pattern);
  for (const std::int64_t layer : config.layers_to_transform) options.layers_to_transform.push_back(std::to_string(layer));
  return options;
}

void require_used_patterns(const model::TensorTable& table, const model::Adapters& adapters) {
  require_used(adapters.config().rank_pattern, "lora.rank_pattern", table, adapters);
  require_used(adapters.config().alpha_pattern, "lora.alpha_pattern", table, adapters);
}

}  // namespace temper::train
