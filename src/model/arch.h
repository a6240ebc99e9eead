// An architecture is a value: dimensions and choices, read from a Hugging Face config.json or from GGUF metadata.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "files/gguf.h"
#include "tensor/tensor.h"

namespace temper::model {

enum class RopeKind { Default, Linear, Llama3 };

/// Rotary embedding: angle of pair i at position p is p · theta^(-2i/head_dim) / factor_i.
struct RopeSpec {
  RopeKind kind = RopeKind::Default;
  double theta = 10000.0;
  double factor = 1.0;            ///< Linear and Llama3.
  double low_freq_factor = 1.0;   ///< Llama3: wavelengths longer than original/low are divided by `factor`,
  double high_freq_factor = 4.0;  ///< those shorter than original/high are kept, between them interpolated.
  std::int64_t original_max_positions = 8192;
  std::vector<float> factors;  ///< GGUF's rope_freqs.weight [head_dim/2]; used instead of the above when not empty.
};

/// The Llama family: pre-norm blocks, RMSNorm, rotary positions, grouped heads, SwiGLU, no biases.
struct ArchSpec {
  std::string model_type;  ///< "llama" or "mistral", as in config.json.
  std::int64_t hidden_size = 0, intermediate_size = 0, num_layers = 0;
  std::int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  std::int64_t vocab_size = 0, max_positions = 0;
  float rms_norm_eps = 1e-5f;
  RopeSpec rope;
  std::int64_t sliding_window = 0;  ///< 0: none. Otherwise a query sees at most this many keys.
  bool tied = false;                ///< Head and embedding are one table.
  DType dtype = DType::BF16;        ///< 16-bit dtype of the checkpoint (F32 if that is what it holds).
  std::optional<std::int64_t> bos_id, pad_id;
  std::vector<std::int64_t> eos_ids;

  std::int64_t q_size() const { return num_heads * head_dim; }
  std::int64_t kv_size() const { return num_kv_heads * head_dim; }
};

/// Reads a config.json of transformers 4 or 5. Throws BadFile (missing or impossible values, naming the key) or Unsupported
/// (an architecture or option we do not have, naming the nearest one known).
ArchSpec arch_from_hf_config(const nlohmann::json& config, const std::string& origin);
/// Reads a GGUF's metadata (architecture "llama"). `dtype` becomes BF16 unless the file holds F16 or F32 matrices.
ArchSpec arch_from_gguf(const files::GgufFile& gguf);
/// The config.json of a merged export, in the form that transformers 4 and 5 both read.
nlohmann::json hf_config(const ArchSpec& arch);

/// Cosines and sines [positions, head_dim/2] F32 each, computed in double.
struct RopeTable {
  Tensor cos, sin;
};
RopeTable rope_table(const ArchSpec& arch, std::int64_t positions);
/// Divisors of the angular frequencies [head_dim/2], as GGUF's rope_freqs.weight stores them; empty when all are 1.
std::vector<float> rope_factors(const RopeSpec& rope, std::int64_t head_dim);

}  // namespace temper::model
