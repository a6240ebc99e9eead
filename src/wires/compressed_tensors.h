// The configuration of compressed-tensors: which formats it has words for, and what quantization_config says.
#pragma once

#include "wires/wire.h"

namespace temper::wires {

/// Empty if compressed-tensors has a format for the matrix and its activations, else why not.
std::string ct_refusal(const Matrix& matrix);
/// quantization_config of a model of these matrices. Throws LogicError for a matrix that is refused.
nlohmann::json ct_config(std::span<const Matrix> matrices);

bool ct_matches(const nlohmann::json& quantization_config);
/// Codec and input of a quantized matrix whose weight_scale has that dtype. Throws BadFile or Unsupported.
void ct_describe(Matrix& matrix, const nlohmann::json& quantization_config, DType scale);

}  // namespace temper::wires
