// Export targets that quantized models are written to, checked against a model before any work is done.
#pragma once

#include <string_view>
#include <vector>

#include "model/tensor_table.h"
#include "wires/wire.h"

namespace temper::model {

/// What a checkpoint of the model stores in the formats of a scheme.
struct WireMatrices {
  std::vector<wires::Matrix> matrices;  ///< As wires are told of them; norms with their role.
  /// Of each, the tensors of the table that it holds (stored_tensors). A quantized tied table is two, lookup and head, for
  /// only the head's input is rounded: the second one comes last with the index table.size(), as it does in the table of the
  /// untied model.
  std::vector<std::vector<std::size_t>> tensors;
};

/// `dtype` is that of the checkpoint's plain tensors. Throws BadRecipe, naming both, where the scheme has different formats
/// for parts of one matrix.
WireMatrices wire_matrices(const TensorTable& table, const quant::Scheme& scheme, DType dtype);

/// How parts of one stored matrix (qkv_proj) come by parameters that belong to all of it (NVFP4's tensor scale): each is fit
/// by itself and has its own, as in training and wherever a model is rounded in memory; or all rows are fit together, as
/// post-training quantization does.
enum class PartsFit { Apart, Together };

/// The wire that writes an export target: by its name, torchao's for executorch; null for gguf:…, gguf-lora, hf and
/// adapter. Throws
/// BadRecipe for what is no target, listing all.
const wires::Wire* wire_of_target(std::string_view target);

/// Throws BadRecipe where the scheme's blocks do not divide rows, or a wire cannot carry a tensor of the model in the
/// scheme: it names the tensor, the reason and the schemes that the wire carries.
void require_carried(const wires::Wire& wire, const TensorTable& table, const quant::Scheme& scheme, DType dtype,
                     PartsFit fit);

/// The same for any target that a run in that scheme shall be exported to as trained; hf and adapters take every run.
void require_target(std::string_view target, const TensorTable& table, const quant::Scheme& scheme, DType dtype,
                    PartsFit fit);

}  // namespace temper::model
