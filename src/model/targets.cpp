#include "model/targets.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "wires/carriers.h"

namespace temper::model {

std::vector<wires::Matrix> wire_matrices(const TensorTable& table, const quant::Scheme& scheme, DType dtype) {
  std::vector<wires::Matrix> all;
  for (const TensorInfo& info : table.all()) {
    const bool norm = info.role == quant::Role::Norm, looked_up = info.role == quant::Role::Embedding;
    all.push_back({info.hf_name, info.role, norm ? 1 : info.shape[0], info.shape[info.shape.rank() - 1],
                   scheme.codec_for(info.place), looked_up ? nullptr : scheme.input_codec_for(info.place), dtype});
    all.back().output = scheme.output_codec_for(info.place);
  }
  const TensorInfo& head = table[table.head()];
  if (head.place.tied && all[table.head()].codec) {
    wires::Matrix matrix = all[table.head()];
    matrix.name = "lm_head.weight";
    matrix.role = quant::Role::Head;
    matrix.input = scheme.input_codec_for(head.place);
    all.push_back(std::move(matrix));
  }
  return all;
}

const wires::Wire* wire_of_target(std::string_view target) {
  if (target == "hf" || target == "adapter" || target == "gguf-lora" || target.starts_with("gguf:")) return nullptr;
  if (target == "executorch") return wires::find_wire("torchao");
  if (const wires::Wire* wire = wires::find_wire(target)) return wire;
  std::vector<std::string_view> names;
  for (const wires::Wire* wire : wires::wires()) names.push_back(wire->name());
  throw BadRecipe(
      "export.to: \"{}\" is no target; there are gguf:q4_0, gguf:q4_k_m and the other schemes of llama.cpp, gguf:bf16, "
      "gguf:f16, gguf-lora, hf, adapter, executorch, {}",
      target, fmt::join(names, ", "));
}

void require_carried(const wires::Wire& wire, const TensorTable& table, const quant::Scheme& scheme, DType dtype) {
  require_fit(table, scheme);
  for (const TensorInfo& info : table.all())
    if (info.fused)
      throw BadRecipe(
          "{}: a model that stores several matrices as one ({}) is not written to quantized folders; GGUF targets carry it",
          wire.name(), info.fused->hf_name);
  const std::vector<wires::Matrix> matrices = wire_matrices(table, scheme, dtype);
  const auto first = std::ranges::find_if(matrices, [](const wires::Matrix& m) { return m.codec != nullptr; });
  for (const wires::Matrix& matrix : matrices) {
    std::string why = wires::refusal(wire, matrix);
    if (why.empty() && wire.one_format() && matrix.codec && matrix.codec != first->codec)
      why = fmt::format("{}, but {} has {}: all linears have one format there", matrix.codec->name(), first->name,
                        first->codec->name());
    if (!why.empty())
      throw BadRecipe("{} cannot carry scheme {}: {}: {}. Schemes that it carries: {}", wire.name(), scheme.name,
                      matrix.name, why, fmt::join(wires::schemes_of(wire.name()), ", "));
  }
}

void require_target(std::string_view target, const TensorTable& table, const quant::Scheme& scheme, DType dtype) {
  // XNNPACK multiplies 8-bit activations of each token with integers in groups of 32, which other schemes are not.
  if (target == "executorch" && scheme.name != "int8-int4")
    throw BadRecipe("executorch cannot carry scheme {}; it carries int8-int4 (phone-deployment)", scheme.name);
  if (const wires::Wire* wire = wire_of_target(target)) return require_carried(*wire, table, scheme, dtype);
  if (!target.starts_with("gguf:") || std::ranges::find(scheme.wires, target) != scheme.wires.end()) return;
  throw BadRecipe("{} cannot carry scheme {} as trained; it carries {}. Targets that carry {}: {}", target, scheme.name,
                  fmt::join(wires::schemes_of(target), ", "), scheme.name, fmt::join(wires::targets_of(scheme), ", "));
}

}  // namespace temper::model
