#include "ptq/way.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "ptq/clip.h"

namespace temper::ptq {
namespace {

using enum recipe::QuantMethod;
using recipe::QuantTransform;

const std::array<Way, 8>& table() {
  static const std::array<Way, 8> ways{{{"rtn", Rtn, QuantTransform::None},
                                        {"mse", Mse, QuantTransform::None},
                                        {"importance", Importance, QuantTransform::None},
                                        {"gptq", Gptq, QuantTransform::None},
                                        {"awq", Rtn, QuantTransform::Awq},
                                        {"awq+gptq", Gptq, QuantTransform::Awq},
                                        {"smoothquant", Rtn, QuantTransform::SmoothQuant},
                                        {"smoothquant+gptq", Gptq, QuantTransform::SmoothQuant}}};
  return ways;
}

// Above, rounding loses too little for scales to win anything back; int4-sym-g32 has just so many.
constexpr double kAwqBits = 5;
constexpr std::int64_t kAnyRow = 16384;

/// The format that most of a scheme's weights are in, or nullptr.
const quant::Codec* main_codec(const quant::Scheme& scheme) {
  if (scheme.linear) return scheme.linear;
  for (const quant::TensorRule& rule : scheme.rules)
    if (const quant::Codec* codec = rule.weights()) return codec;
  return nullptr;
}

/// True if the scheme or one of its rules rounds activations.
bool rounds_inputs(const quant::Scheme& scheme) {
  return scheme.input ||
         std::ranges::any_of(scheme.rules, [](const quant::TensorRule& rule) { return rule.input() != nullptr; });
}

}  // namespace

bool Way::looks_at_data() const { return method == Importance || method == Gptq || transform != QuantTransform::None; }

const Way& way_of(std::string_view name) {
  const auto found = std::ranges::find(table(), name, &Way::name);
  if (found != table().end()) return *found;
  std::string known;
  for (const Way& way : table()) known += (known.empty() ? "" : ", ") + way.name;
  throw BadRecipe("no way of quantizing is called \"{}\"; there are {}", name, known);
}

std::vector<Way> ways_for(const quant::Scheme& scheme) {
  std::vector<Way> ways{way_of("rtn")};
  const auto add = [&](bool wanted, std::string_view name) {
    if (wanted) ways.push_back(way_of(name));
  };
  const quant::Codec* codec = main_codec(scheme);
  const bool few_bits = codec && codec->bits_per_weight(codec->group() > 0 ? codec->group() : kAnyRow) <= kAwqBits;
  add(codec && can_clip(*codec), "mse");
  add(codec && !quant::gguf_type(*codec).empty(), "importance");
  add(true, "gptq");
  add(few_bits, "awq");
  add(few_bits, "awq+gptq");
  add(rounds_inputs(scheme), "smoothquant");
  add(rounds_inputs(scheme), "smoothquant+gptq");
  return ways;
}

}  // namespace temper::ptq
