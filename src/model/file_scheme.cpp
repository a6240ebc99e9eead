#include "model/file_scheme.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "base/error.h"

namespace temper::model {
namespace {

/// "0-2,5" of layers in ascending order.
std::string ranges_of(const std::vector<int>& layers) {
  std::string text;
  for (std::size_t i = 0; i < layers.size();) {
    std::size_t end = i + 1;
    while (end < layers.size() && layers[end] == layers[end - 1] + 1) ++end;
    text += fmt::format("{}{}", text.empty() ? "" : ",", layers[i]);
    if (end - i > 1) text += fmt::format("-{}", layers[end - 1]);
    i = end;
  }
  return text;
}

}  // namespace

std::string scheme_of_file(const CheckpointReader& reader, const std::vector<std::string>& modules) {
  const TensorTable& table = reader.table();
  std::string text = "none";
  for (const Linear linear : kLinears) {
    if (std::ranges::find(modules, module_name(linear)) == modules.end()) continue;
    std::map<std::string_view, std::vector<int>> layers;  // by format
    for (int layer = 0; layer < table.layers(); ++layer) {
      const std::size_t index = table.linear(layer, linear);
      const quant::Codec* codec = reader.stored(index).encoded.codec;
      if (!codec) continue;
      if (!codec->encodes())
        throw BadRecipe(
            "quant.scheme same: {} is {}, which temper reads but does not write; leave {} out of lora.target_modules, or "
            "train on the base as it is, without a scheme",
            table[index].hf_name, codec->name(), module_name(linear));
      layers[codec->name()].push_back(layer);
    }
    for (const auto& [format, at] : layers) {
      const bool all = std::ssize(at) == table.layers();
      text += fmt::format("; {}{}: {}", module_name(linear), all ? "" : " layers " + ranges_of(at), format);
    }
  }
  if (text == "none")
    throw BadRecipe("quant.scheme same: {} ({}) holds none of {} in a number format; name a scheme", reader.path().string(),
                    reader.formats(), fmt::join(modules, ", "));
  return text;
}

}  // namespace temper::model
