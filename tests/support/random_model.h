// A Llama of a few ten thousand weights, made of seeded random numbers: a model folder for tests, without a tokenizer, and
// rows to train it on.
#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/atomic_file.h"
#include "base/rng.h"
#include "files/safetensors.h"
#include "text/dataset.h"

namespace temper::testing {

struct RandomModel {
  std::int64_t vocab = 96, hidden = 64, intermediate = 96, layers = 2, heads = 4, kv_heads = 2;
  bool tied = false;
  DType dtype = DType::BF16;  ///< BF16 or F32.
  std::uint64_t seed = 1;
  bool outliers = false;  ///< Norms multiply a column in 16 by 8: features that stand out, as large models have them.
  float poison = 0;       ///< Not 0: the value of the first element of the last block's down_proj.
};

namespace detail {

/// Uniform with the standard deviation 1/sqrt(cols), so that activations keep their size; norms near 1.
inline std::vector<float> random_tensor(const Shape& shape, std::uint64_t seed, std::uint64_t stream) {
  Rng rng(seed, stream);
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  const float bound = std::sqrt(3.0f / static_cast<float>(shape[shape.rank() - 1]));
  for (float& x : values) {
    const float u = 2.0f * rng.uniform() - 1.0f;
    x = shape.rank() == 1 ? 1.0f + 0.1f * u : bound * u;
  }
  return values;
}

inline std::vector<std::pair<std::string, Shape>> llama_tensors(const RandomModel& m) {
  const std::int64_t kv = m.kv_heads * (m.hidden / m.heads);
  std::vector<std::pair<std::string, Shape>> list = {{"model.embed_tokens.weight", {m.vocab, m.hidden}}};
  for (std::int64_t layer = 0; layer < m.layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    list.push_back({prefix + "input_layernorm.weight", {m.hidden}});
    list.push_back({prefix + "self_attn.q_proj.weight", {m.hidden, m.hidden}});
    list.push_back({prefix + "self_attn.k_proj.weight", {kv, m.hidden}});
    list.push_back({prefix + "self_attn.v_proj.weight", {kv, m.hidden}});
    list.push_back({prefix + "self_attn.o_proj.weight", {m.hidden, m.hidden}});
    list.push_back({prefix + "post_attention_layernorm.weight", {m.hidden}});
    list.push_back({prefix + "mlp.gate_proj.weight", {m.intermediate, m.hidden}});
    list.push_back({prefix + "mlp.up_proj.weight", {m.intermediate, m.hidden}});
    list.push_back({prefix + "mlp.down_proj.weight", {m.hidden, m.intermediate}});
  }
  list.push_back({"model.norm.weight", {m.hidden}});
  if (!m.tied) list.push_back({"lm_head.weight", {m.vocab, m.hidden}});
  return list;
}

}  // namespace detail

/// Writes config.json and model.safetensors into `folder`, which is made.
inline void write_random_model(const std::filesystem::path& folder, const RandomModel& m = {}) {
  std::filesystem::create_directories(folder);
  const nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                                 {"model_type", "llama"},
                                 {"hidden_size", m.hidden},
                                 {"intermediate_size", m.intermediate},
                                 {"num_hidden_layers", m.layers},
                                 {"num_attention_heads", m.heads},
                                 {"num_key_value_heads", m.kv_heads},
                                 {"vocab_size", m.vocab},
                                 {"max_position_embeddings", 512},
                                 {"rms_norm_eps", 1e-5},
                                 {"rope_theta", 10000.0},
                                 {"tie_word_embeddings", m.tied},
                                 {"hidden_act", "silu"},
                                 {"torch_dtype", m.dtype == DType::F32 ? "float32" : "bfloat16"}};
  write_file(folder / "config.json", config.dump(2));
  const auto tensors = detail::llama_tensors(m);
  std::vector<files::SafetensorsEntry> entries;
  for (const auto& [name, shape] : tensors) entries.push_back({name, m.dtype, shape});
  files::SafetensorsWriter writer(folder / "model.safetensors", entries);
  const std::string last_down = "model.layers." + std::to_string(m.layers - 1) + ".mlp.down_proj.weight";
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    std::vector<float> values = detail::random_tensor(tensors[i].second, m.seed, i);
    for (std::size_t k = 5; m.outliers && tensors[i].second.rank() == 1 && k < values.size(); k += 16) values[k] *= 8.0f;
    if (m.poison != 0 && tensors[i].first == last_down) values[0] = m.poison;
    if (m.dtype == DType::F32) {
      writer.write(std::as_bytes(std::span(values)));
    } else {
      std::vector<bf16> rounded;
      for (const float x : values) rounded.push_back(to_bf16(x));
      writer.write(std::as_bytes(std::span(rounded)));
    }
  }
  writer.commit();
}

/// Documents of 6 to 40 tokens that count upwards by a step of their own (modulo the vocabulary), so that there is something
/// to learn; the second half of each is labelled.
inline std::vector<text::Sample> counting_samples(std::int64_t count, std::int64_t vocab, std::uint64_t seed) {
  Rng rng(seed, 1000);
  std::vector<text::Sample> samples;
  for (std::int64_t row = 1; row <= count; ++row) {
    const std::size_t length = 6 + rng.below(35);
    const std::int64_t stride = 1 + rng.below(3);
    std::int64_t token = rng.below(static_cast<std::uint32_t>(vocab));
    text::Sample sample;
    sample.row = row;
    for (std::size_t i = 0; i < length; ++i, token = (token + stride) % vocab) {
      sample.ids.push_back(static_cast<std::int32_t>(token));
      sample.labelled.push_back(i > 0 && i >= length / 2 ? 1 : 0);
    }
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace temper::testing
