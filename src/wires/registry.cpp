// The table of wires.
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "files/json.h"
#include "wires/formats.h"

namespace temper::wires {

std::string refusal(const Wire& wire, const Matrix& matrix) {
  if (matrix.output && !wire.carries_outputs())
    return fmt::format("it has no rounded outputs ({}); compressed-tensors has", matrix.output->name());
  return wire.refusal(matrix);
}

std::span<const Wire* const> wires() {
  static const std::vector<const Wire*> table = {
      &torchao_wire(), &compressed_tensors_wire(), &bitsandbytes_wire(), &gptq_wire(), &gptq_v2_wire(), &awq_wire()};
  return table;
}

const Wire* find_wire(std::string_view name) {
  const auto found = std::ranges::find(wires(), name, &Wire::name);
  return found == wires().end() ? nullptr : *found;
}

const Wire& wire_of(const nlohmann::json& quantization_config, const std::string& origin) {
  const std::string& method = files::require_string(quantization_config, "quant_method", origin);
  for (const Wire* wire : wires())
    if (wire->matches(quantization_config)) return *wire;
  std::vector<std::string_view> names;
  for (const Wire* wire : wires()) names.push_back(wire->name());
  throw Unsupported("{}: quantization_config: quant_method \"{}\" is not read; temper reads {}", origin, method,
                    fmt::join(names, ", "));
}

const files::SafetensorsTensor& require_tensor(const FindTensor& find, std::string_view name, DType dtype,
                                               const Shape& shape) {
  const files::SafetensorsTensor* tensor = find(name);
  if (!tensor) throw BadFile("tensor {} is missing: expected {} {}", name, dtype_name(dtype), shape.str());
  if (tensor->dtype != dtype || tensor->shape != shape)
    throw BadFile("tensor {}: expected {} {}, found {} {}", name, dtype_name(dtype), shape.str(), dtype_name(tensor->dtype),
                  tensor->shape.str());
  return *tensor;
}

}  // namespace temper::wires
