// Adapters on disk in the layout of peft 0.21: adapter_config.json and adapter_model.safetensors (formats of Hugging Face
// peft).
#pragma once

#include <filesystem>
#include <string>

#include "model/adapters.h"

namespace temper::model {

/// The model that an adapter was trained on.
struct PeftBase {
  std::string name;  ///< peft's base_model_name_or_path.
  std::string fingerprint =
      {};  ///< Tells one base from another; in the weights' metadata, which peft ignores. Empty: unknown.
};

/// Writes `folder`/adapter_config.json and adapter_model.safetensors (F32; names base_model.model.<module>.lora_A.weight [r,
/// in], lora_B.weight [out, r]), the weights first and atomically. `beside`:
/// masters (F32, by table index; null views are none) of what the config says is trained beside them; biases go by peft's
/// <module>.base_layer.bias or <module>.bias, embeddings and head by model.embed_tokens.weight and lm_head.weight, a tied
/// table by both. Adapters of matrices that are stored as one go as peft_fused.h says, which may throw Unsupported.
void save_peft(const Adapters& adapters, const TensorTable& table, const PeftBase& base, const std::filesystem::path& folder,
               const std::vector<TensorView>& beside = {});

/// Reads such a folder (F32, BF16 or F16). Throws BadFile where a tensor is missing, unknown or of another shape than the
/// table implies (an adapter for another base), Unsupported for what we do not apply (other peft types). What was
/// trained beside the adapters goes to `beside` (F32, by table index), which becomes empty where there is none; without a
/// place for it, it is Unsupported.
Adapters load_peft(const TensorTable& table, const std::filesystem::path& folder, std::vector<Tensor>* beside = nullptr);

/// The config of such a folder alone, and its base. `table` says whether embeddings and head are one. Throws as load_peft.
LoraConfig read_peft_config(const TensorTable& table, const std::filesystem::path& folder);
PeftBase read_peft_base(const std::filesystem::path& folder);

}  // namespace temper::model
