// The table of architectures: what sets each apart from Llama, one row each.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "ops/gate.h"

namespace temper::model {

/// A decoder of pre-norm blocks with RMSNorm, rotary positions, grouped heads and a gated MLP, no biases, as Llama is; a row
/// says what else there is. Dimensions and per-layer patterns stand in the model's own configuration (ArchSpec).
struct Architecture {
  std::string_view model_type;  ///< Of config.json.
  std::string_view class_name;  ///< transformers' class, as in config.json's `architectures`.
  std::string_view gguf;        ///< GGUF's general.architecture, the prefix of its keys.
  ops::Gate gate = ops::Gate::Silu;
  bool qkv_bias = false;           ///< q, k and v projections add a bias.
  bool qk_norm = false;            ///< RMSNorm of each head of q and k before they are turned.
  bool post_norms = false;         ///< Norms after attention and after the MLP, too, before the residual is added.
  bool offset_norms = false;       ///< Checkpoints of transformers hold norms as w where 1 + w multiplies.
  bool scaled_embedding = false;   ///< Embeddings are multiplied by sqrt(hidden_size).
  bool fused = false;              ///< One stored matrix for q, k and v, and one for gate and up.
  bool tied_by_default = false;    ///< Where config.json does not say tie_word_embeddings.
  bool interleaved_heads = false;  ///< GGUF stores each head's rows of q and k interleaved.
};

/// All rows; the first of several with one GGUF name is what a GGUF file is read as.
std::span<const Architecture> architectures();
/// By config.json's model_type. Throws Unsupported naming `origin` and the nearest one known.
const Architecture& architecture_of_hf(std::string_view model_type, const std::string& origin);
/// By GGUF's general.architecture; throws likewise.
const Architecture& architecture_of_gguf(std::string_view name, const std::string& origin);

}  // namespace temper::model
