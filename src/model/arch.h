// An architecture is a value: a row of the table (architecture.h), dimensions and patterns, read from a Hugging Face
// config.json or from GGUF metadata.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "files/gguf.h"
#include "model/architecture.h"
#include "model/rope.h"
#include "tensor/tensor.h"

namespace temper::model {

/// Which positions a layer's attention sees of its queries and keys.
enum class LayerRope { Global, Local, None };

/// What differs from layer to layer.
struct LayerSpec {
  bool windowed = false;  ///< Its queries see at most ArchSpec::sliding_window keys.
  LayerRope rope = LayerRope::Global;
};

struct ArchSpec {
  const Architecture* architecture = &architectures().front();  ///< Llama, unless something else was read.
  std::int64_t hidden_size = 0, intermediate_size = 0, num_layers = 0;
  std::int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  std::int64_t vocab_size = 0, max_positions = 0;
  float rms_norm_eps = 1e-5f;
  std::int64_t rotated = 0;         ///< Values of each head that are turned: the first so many.
  RopeSpec rope, local_rope;        ///< Of LayerRope::Global and Local.
  std::int64_t sliding_window = 0;  ///< Of windowed layers; 0: there are none.
  std::vector<LayerSpec> layers;    ///< One a layer.
  float attention_scale = 0;        ///< Multiplies q·k.
  float attention_softcap = 0;      ///< 0: none.
  float logit_softcap = 0;          ///< 0: none.
  bool tied = false;                ///< Head and embedding are one table.
  DType dtype = DType::BF16;        ///< 16-bit dtype of the checkpoint (F32 if that is what it holds).
  std::optional<std::int64_t> bos_id, pad_id;
  std::vector<std::int64_t> eos_ids;

  std::int64_t q_size() const { return num_heads * head_dim; }
  std::int64_t kv_size() const { return num_kv_heads * head_dim; }
  /// What embeddings are multiplied by.
  float embedding_scale() const;
  const LayerSpec& layer(int index) const { return layers[static_cast<std::size_t>(index)]; }
  bool any_layer(LayerRope kind) const;
};

/// Reads a config.json of transformers 4 or 5; of a model with more than language, its text part. Throws BadFile (missing or
/// impossible values, naming the key) or Unsupported (an architecture or option we do not have, naming the nearest known).
ArchSpec arch_from_hf_config(const nlohmann::json& config, const std::string& origin);
/// The config.json of a merged export, in the form that transformers 4 and 5 both read.
nlohmann::json hf_config(const ArchSpec& arch);

/// Reads a GGUF's metadata. `dtype` becomes BF16 unless the file holds F16 or F32 matrices.
ArchSpec arch_from_gguf(const files::GgufFile& gguf);
/// Writes the keys of general.architecture, as arch_from_gguf and llama.cpp read them.
void write_gguf_arch(const ArchSpec& arch, files::GgufWriter& writer);

/// Fills what follows from the rest (layers, rotated, attention_scale, where not set) and checks dimensions against each
/// other; BadFile.
void complete_arch(ArchSpec& arch, const std::string& origin);

/// No known model comes near; guards products against overflow.
inline constexpr std::int64_t kMaxDim = std::int64_t{1} << 24;

}  // namespace temper::model
