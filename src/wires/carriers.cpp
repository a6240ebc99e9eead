#include "wires/carriers.h"

#include <algorithm>

namespace temper::wires {

std::string refusal(const Wire& wire, const quant::Scheme& scheme) {
  if (scheme.mix) return fmt::format("{} is a mix of llama.cpp's", scheme.name);
  constexpr std::int64_t kExtent = 4096;
  for (const quant::Role role : {quant::Role::Linear, quant::Role::Embedding, quant::Role::Head}) {
    quant::TensorPlace place;
    place.role = role;
    place.cols = kExtent;
    Matrix matrix{"model.weight", role, kExtent, kExtent, scheme.codec_for(place), scheme.input_codec_for(place)};
    matrix.output = scheme.output_codec_for(place);
    if (std::string why = refusal(wire, matrix); !why.empty()) return why;
  }
  return "";
}

std::vector<std::string> targets_of(const quant::Scheme& scheme) {
  std::vector<std::string> targets = scheme.wires;
  for (const Wire* wire : wires())
    if (refusal(*wire, scheme).empty()) targets.emplace_back(wire->name());
  return targets;
}

std::vector<std::string> schemes_of(std::string_view target) {
  std::vector<std::string> names;
  for (const quant::Scheme& scheme : quant::schemes())
    if (const auto targets = targets_of(scheme); std::ranges::find(targets, target) != targets.end())
      names.push_back(scheme.name);
  return names;
}

std::string_view readers_of(std::string_view target) {
  if (const Wire* wire = find_wire(target)) return wire->readers();
  return target.starts_with("gguf:") ? "llama.cpp, Ollama" : "transformers";
}

std::string matrix_markdown() {
  std::string header = "| scheme | projections | activations | embedding, head | GGUF (llama.cpp, Ollama) |",
              rule = "|---|---|---|---|---|";
  for (const Wire* wire : wires()) {
    header += fmt::format(" {} ({}) |", wire->name(), wire->readers());
    rule += "---|";
  }
  std::string text = header + "\n" + rule + "\n";
  const auto name_of = [](const quant::Codec* codec) { return codec ? codec->name() : std::string_view("16 bit"); };
  for (const quant::Scheme& scheme : quant::schemes()) {
    text += fmt::format("| `{}` | {}{} | {} | {} | {} |", scheme.name, scheme.mix ? "mix on " : "", name_of(scheme.linear),
                        name_of(scheme.input), scheme.mix ? "mix" : name_of(scheme.table),
                        scheme.wires.empty() ? "" : fmt::format("`{}`", scheme.wires.front()));
    for (const Wire* wire : wires()) text += refusal(*wire, scheme).empty() ? " yes |" : " |";
    text += "\n";
  }
  return text;
}

}  // namespace temper::wires
