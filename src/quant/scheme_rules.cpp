#include "quant/scheme_rules.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "base/error.h"
#include "base/nearest.h"
#include "quant/activations.h"
#include "quant/scheme.h"

namespace temper::quant {
namespace {

constexpr std::string_view kNone = "none", kLayers = "layers", kWeightSuffix = ".weight";
constexpr std::array<std::pair<std::string_view, Projection>, 7> kProjections = {{{"q_proj", Projection::Q},
                                                                                  {"k_proj", Projection::K},
                                                                                  {"v_proj", Projection::V},
                                                                                  {"o_proj", Projection::O},
                                                                                  {"gate_proj", Projection::Gate},
                                                                                  {"up_proj", Projection::Up},
                                                                                  {"down_proj", Projection::Down}}};
constexpr std::array<std::string_view, 4> kRoles = {"linear", "embedding", "head", "lm_head"};

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> items;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find(separator, at), text.size());
    if (const std::string_view item = trimmed(text.substr(at, end - at)); !item.empty()) items.emplace_back(item);
    at = end + 1;
  }
  return items;
}

/// `*` any text, `?` any character.
bool glob_matches(std::string_view pattern, std::string_view text) {
  std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p, ++t;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

struct Range {
  int first, last;
};

/// "3", "3-7" or "3-"; false for anything else.
bool parse_range(std::string_view text, Range& range) {
  const char* end = text.data() + text.size();
  auto [at, error] = std::from_chars(text.data(), end, range.first);
  if (error != std::errc() || range.first < 0) return false;
  range.last = range.first;
  if (at == end) return true;
  if (*at++ != '-') return false;
  range.last = std::numeric_limits<int>::max();
  if (at == end) return true;
  auto [rest, last_error] = std::from_chars(at, end, range.last);
  return last_error == std::errc() && rest == end && range.last >= range.first;
}

bool is_pattern(std::string_view word) { return word.find_first_of("*?.") != std::string_view::npos; }

void check_word(std::string_view rule, std::string_view word) {
  if (is_pattern(word)) return;
  std::vector<std::string_view> known(kRoles.begin(), kRoles.end());
  for (const auto& [name, projection] : kProjections) known.push_back(name);
  if (std::ranges::find(known, word) != known.end()) return;
  const auto nearest = std::ranges::min_element(known, {}, [&](std::string_view k) { return edit_distance(word, k); });
  throw BadRecipe(
      "rule \"{}\": \"{}\" selects nothing; did you mean \"{}\"? Expected linear, embedding, head, a projection (q_proj … "
      "down_proj), layers A-B, or a pattern over names (*.down_proj)",
      rule, word, *nearest);
}

const Codec* parse_weights(std::string_view rule, std::string_view name) {
  if (name == kNone) return nullptr;
  const Codec* codec = find_codec(name);
  if (codec && codec->encodes()) return codec;
  const auto nearest = std::ranges::min_element(
      codecs(), {}, [&](const Codec* c) { return c->encodes() ? edit_distance(name, c->name()) : name.size() + 100; });
  throw BadRecipe("rule \"{}\": unknown format \"{}\"; did you mean \"{}\"? `temper schemes` lists them", rule, name,
                  (*nearest)->name());
}

std::string joined(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) text += (text.empty() ? "" : ",") + item;
  return text;
}

}  // namespace

ActivationNames split_activations(std::string_view text) {
  const std::size_t slash = text.find('/');
  return {trimmed(text.substr(0, slash)),
          slash == std::string_view::npos ? std::string_view() : trimmed(text.substr(slash + 1))};
}

const Codec* ActivationNames::input_codec() const { return input == kNone ? nullptr : &activation_codec(input); }

const Codec* ActivationNames::output_codec() const {
  if (output == kNone) return nullptr;
  const Codec& codec = activation_codec(output);
  if (!has_static_range(codec) || codec.group() != 0)
    throw BadRecipe("outputs \"{}\": products are rounded to int8-static-sym, int8-static-asym or fp8-static", output);
  return &codec;
}

TensorRule TensorRule::parse(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos)
    throw BadRecipe("rule \"{}\": expected SELECTOR: FORMAT, such as \"layers 0-3: q8_0\"", text);
  TensorRule rule;
  bool layers = false;
  for (const std::string& word : split(text.substr(0, colon), ' ')) {
    if (!layers && word == kLayers) {
      layers = true;
      continue;
    }
    Part part{layers, split(word, ',')};
    for (const std::string& item : part.alternatives) {
      Range range;
      if (layers && !parse_range(item, range))
        throw BadRecipe("rule \"{}\": \"{}\" is no range of layers; expected 3, 0-3 or 20-", text, item);
      if (!layers) check_word(text, item);
    }
    rule.text_ += (rule.text_.empty() ? "" : " ") + std::string(layers ? "layers " : "") + joined(part.alternatives);
    rule.parts_.push_back(std::move(part));
    layers = false;
  }
  if (layers || rule.parts_.empty())
    throw BadRecipe("rule \"{}\": expected tensors before the colon, such as \"layers 0-3\" or \"*.down_proj\"", text);
  const std::string_view format = trimmed(text.substr(colon + 1));
  const std::size_t slash = format.find('/');
  rule.weights_ = parse_weights(text, trimmed(format.substr(0, slash)));
  rule.text_ += ": " + std::string(rule.weights_ ? rule.weights_->name() : kNone);
  if (slash == std::string_view::npos) return rule;
  const ActivationNames names = split_activations(format.substr(slash + 1));
  rule.sets_input_ = true;
  rule.input_ = names.input_codec();
  rule.text_ += "/" + std::string(names.input);
  if (!names.output.empty()) {
    rule.sets_output_ = true;
    rule.output_ = names.output_codec();
    rule.text_ += "/" + std::string(names.output);
  }
  if (!rule.weights_ && (rule.input_ || rule.output_))
    throw BadRecipe(
        "rule \"{}\": activations are rounded where weights are quantized: give the weights a format, or leave \"/{}\" out",
        text, format.substr(slash + 1));
  return rule;
}

bool TensorRule::matches(const Part& part, const TensorPlace& place) {
  return std::ranges::any_of(part.alternatives, [&](const std::string& item) {
    if (Range range; part.layers) return parse_range(item, range) && place.layer >= range.first && place.layer <= range.last;
    if (item == "linear") return place.role == Role::Linear;
    if (item == "embedding") return place.role == Role::Embedding;
    if (item == "head" || item == "lm_head")
      return place.role == Role::Head || (place.role == Role::Embedding && place.tied);
    for (const auto& [name, projection] : kProjections)
      if (item == name) return place.projection == projection;
    const std::string_view name = place.name;
    return glob_matches(item, name) ||
           (name.ends_with(kWeightSuffix) && glob_matches(item, name.substr(0, name.size() - kWeightSuffix.size())));
  });
}

bool TensorRule::selects(const TensorPlace& place) const {
  return place.role != Role::Norm && std::ranges::all_of(parts_, [&](const Part& part) { return matches(part, place); });
}

}  // namespace temper::quant
