// Export targets that quantized models are written to, checked against a model before any work is done.
#pragma once

#include <string_view>
#include <vector>

#include "model/tensor_table.h"
#include "wires/wire.h"

namespace temper::model {

/// The tensors of a model in the formats of a scheme, as wires are told of them, by index in the table; norms with their
/// role. A quantized tied table is two tensors, lookup and head, for only the head's input is rounded: the second one comes
/// last, as it does in the table of the untied model. `dtype` is that of the checkpoint's plain tensors.
std::vector<wires::Matrix> wire_matrices(const TensorTable& table, const quant::Scheme& scheme, DType dtype);

/// The wire that writes an export target: by its name, torchao's for executorch; null for gguf:…, gguf-lora, hf and
/// adapter. Throws
/// BadRecipe for what is no target, listing all.
const wires::Wire* wire_of_target(std::string_view target);

/// Throws BadRecipe where the scheme's blocks do not divide rows, or a wire cannot carry a tensor of the model in the
/// scheme: it names the tensor, the reason and the schemes that the wire carries.
void require_carried(const wires::Wire& wire, const TensorTable& table, const quant::Scheme& scheme, DType dtype);

/// The same for any target that a run in that scheme shall be exported to as trained; hf and adapters take every run.
void require_target(std::string_view target, const TensorTable& table, const quant::Scheme& scheme, DType dtype);

}  // namespace temper::model
