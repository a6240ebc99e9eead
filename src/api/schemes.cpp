// temper schemes: the table of schemes for people and programs.
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "quant/activations.h"
#include "quant/scheme.h"
#include "temper/temper.h"
#include "wires/carriers.h"

namespace temper::api {
namespace {

using Json = nlohmann::ordered_json;

/// Programs that read one of the targets, each once.
std::vector<std::string_view> readers_of(const std::vector<std::string>& targets) {
  constexpr std::string_view kComma = ", ";
  std::vector<std::string_view> programs;
  for (const std::string& target : targets)
    for (std::string_view rest = wires::readers_of(target); !rest.empty();) {
      const std::string_view program = rest.substr(0, rest.find(kComma));
      if (std::ranges::find(programs, program) == programs.end()) programs.push_back(program);
      rest.remove_prefix(std::min(rest.size(), program.size() + kComma.size()));
    }
  return programs;
}

/// Bits per weight over the blocks' projections of Llama 3.1 8B: mixes give its layers different formats.
double bits_per_weight(const quant::Scheme& scheme) {
  using quant::Projection;
  struct Shape {
    Projection projection;
    std::int64_t rows, cols;
  };
  constexpr int kLayers = 32;
  constexpr Shape kShapes[] = {{Projection::Q, 4096, 4096},     {Projection::K, 1024, 4096},
                               {Projection::V, 1024, 4096},     {Projection::O, 4096, 4096},
                               {Projection::Gate, 14336, 4096}, {Projection::Up, 14336, 4096},
                               {Projection::Down, 4096, 14336}};
  double bits = 0.0, weights = 0.0;
  for (int layer = 0; layer < kLayers; ++layer)
    for (const Shape& shape : kShapes) {
      const quant::Codec* codec =
          scheme.codec_for({quant::Role::Linear, shape.projection, layer, kLayers, shape.cols, false, 4});
      const auto elements = static_cast<double>(shape.rows * shape.cols);
      bits += elements * (codec ? codec->bits_per_weight(shape.cols) : 16.0);
      weights += elements;
    }
  return bits / weights;
}

}  // namespace

Outcome schemes() {
  Outcome outcome;
  Json json = Json::array();
  outcome.text = fmt::format("{:<16} {:>6}  {:<26} {:<16} {:<13} {:<26} {}\n", "scheme", "bits", "projections", "tables",
                             "activations", "wires", "read by");
  for (const quant::Scheme& scheme : quant::schemes()) {
    const double bits = bits_per_weight(scheme);
    const auto name_of = [](const quant::Codec* codec) {
      return codec ? std::string(codec->name()) : std::string("16-bit");
    };
    const std::string linear = scheme.mix ? "mix on " + name_of(scheme.linear) : name_of(scheme.linear);
    const std::string tables = scheme.mix ? "mix" : name_of(scheme.table);
    const std::vector<std::string> targets = wires::targets_of(scheme);
    const std::vector<std::string_view> readers = readers_of(targets);
    const std::string activations = scheme.input ? std::string(scheme.input->name()) : "16-bit";
    outcome.text +=
        fmt::format("{:<16} {:>6.3f}  {:<26} {:<16} {:<13} {:<26} {}\n", scheme.name, bits, linear, tables, activations,
                    targets.empty() ? "none" : fmt::format("{}", fmt::join(targets, ", ")), fmt::join(readers, ", "));
    json.push_back({{"name", scheme.name},
                    {"bits_per_weight", bits},
                    {"projections", linear},
                    {"tables", tables},
                    {"activations", activations},
                    {"wires", targets},
                    {"readers", readers}});
  }
  std::vector<std::string_view> others;
  for (const quant::Codec* codec : quant::codecs())
    if (codec->encodes() && !quant::scheme(codec->name()).mix &&  // q4_k is the mix q4_k_m
        std::ranges::none_of(quant::schemes(), [&](const quant::Scheme& scheme) { return scheme.name == codec->name(); }))
      others.push_back(codec->name());
  outcome.text += fmt::format(
      "bits: per weight of the projections, in a model of Llama 3.1 8B's shape\n"
      "Other formats are schemes for the projections by their own names: {}; and integers in general, "
      "int<2|3|4|5|6|8>-<sym|asym|symeps|symfull|mslk|ctsym|ctasym|tinygemm>[-g<32|64|128|256>][-bf16|-f16].\n",
      fmt::join(others, ", "));
  outcome.text += fmt::format(
      "One's own: SCHEME/ACTIVATIONS; RULE; … such as \"int4-sym-g32/int8-asym; head: int8-sym; layers 0-3: q8_0\" "
      "(docs/schemes.md). Activations, each token on its own: {}; or none.\n",
      fmt::join(quant::activation_formats(), ", "));
  outcome.json = json.dump();
  return outcome;
}

}  // namespace temper::api
