// Adapters on disk in the layout of peft 0.21: adapter_config.json and adapter_model.safetensors (formats of Hugging Face
// peft).
#pragma once

#include <filesystem>
#include <string>

#include "model/adapters.h"

namespace temper::model {

/// Writes `folder`/adapter_config.json and adapter_model.safetensors (F32; names base_model.model.<module>.lora_A.weight [r,
/// in], lora_B.weight [out, r]), the weights first and atomically. `base_model` becomes base_model_name_or_path.
void save_peft(const Adapters& adapters, const TensorTable& table, const std::string& base_model,
               const std::filesystem::path& folder);

/// Reads such a folder (F32, BF16 or F16). Throws BadFile where a tensor is missing, unknown or of another shape than the
/// table implies (an adapter for another base), Unsupported for what we do not apply (DoRA, biases, other peft types).
Adapters load_peft(const TensorTable& table, const std::filesystem::path& folder);

}  // namespace temper::model
