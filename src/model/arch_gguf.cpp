// ArchSpec from and to GGUF's keys (llama.cpp, 2026; src/llama-arch.cpp and src/models name them).
#include <cmath>
#include <memory>
#include <variant>

#include "base/error.h"
#include "model/arch.h"

namespace temper::model {
namespace {

using files::GgufFile;

/// "gemma3." + key.
std::string key_of(const ArchSpec& a, std::string_view key) { return fmt::format("{}.{}", a.architecture->gguf, key); }

void read_scaling(const GgufFile& gguf, ArchSpec& a) {
  const std::string& origin = gguf.origin();
  const auto number = [&](const char* key) { return gguf.optional_f32(key_of(a, key)); };
  const std::string key = key_of(a, "rope.scaling.type");
  const auto type = gguf.optional_string(key);
  if (const auto original = gguf.optional_u32(key_of(a, "rope.scaling.original_context_length")); original.value_or(0) > 0)
    a.rope.original_max_positions = *original;
  if (!type || *type == "none") return;
  a.rope.factor = number("rope.scaling.factor").value_or(1.0f);
  if (*type == "linear") {
    a.rope.kind = RopeKind::Linear;
  } else if (*type == "yarn") {
    a.rope.kind = RopeKind::Yarn;
    a.rope.beta_fast = number("rope.scaling.yarn_beta_fast").value_or(32.0f);
    a.rope.beta_slow = number("rope.scaling.yarn_beta_slow").value_or(1.0f);
    a.rope.attention_factor = yarn_attention_factor(a.rope.factor) * number("rope.scaling.attn_factor").value_or(1.0f);
  } else if (*type != "longrope") {  // which its tensors say
    throw Unsupported("{}: {} \"{}\": expected none, linear, yarn or longrope", origin, key, *type);
  }
  if (!(a.rope.factor > 0)) throw BadFile("{}: rope scaling factor {}: expected one above 0", origin, a.rope.factor);
}

void read_layers(const GgufFile& gguf, ArchSpec& a) {
  a.layers.resize(static_cast<std::size_t>(a.num_layers));
  const std::string_view type = a.architecture->gguf;
  a.sliding_window = gguf.optional_u32(key_of(a, "attention.sliding_window")).value_or(type == "gemma2" ? 4096 : 0);
  if (type == "llama" || type.starts_with("qwen")) a.sliding_window = 0;  // llama.cpp gives these none
  const std::string pattern_key = key_of(a, "attention.sliding_window_pattern");
  const files::GgufValue* stated = gguf.find_value(pattern_key);
  std::int64_t pattern = type == "gemma2" ? 2 : 6;
  std::vector<std::int64_t> listed;
  if (stated) {
    if (std::holds_alternative<files::GgufArray>(*stated))
      listed = gguf.get_int_array(pattern_key);
    else
      pattern = gguf.get_u32(pattern_key);
  }
  if (!listed.empty() && std::ssize(listed) != a.num_layers)
    throw BadFile("{}: {}: expected {} entries, found {}", gguf.origin(), pattern_key, a.num_layers, listed.size());
  for (std::int64_t i = 0; i < a.num_layers; ++i) {
    LayerSpec& layer = a.layers[static_cast<std::size_t>(i)];
    if (type.starts_with("gemma"))
      layer.windowed = listed.empty() ? pattern > 0 && (i + 1) % pattern != 0 : listed[static_cast<std::size_t>(i)] != 0;
    if (type == "phi3") layer.windowed = true;
    if (type == "gemma3" && layer.windowed) layer.rope = LayerRope::Local;
    if (type == "smollm3" && (i + 1) % 4 == 0) layer.rope = LayerRope::None;
  }
}

}  // namespace

ArchSpec arch_from_gguf(const GgufFile& gguf) {
  const std::string& origin = gguf.origin();
  ArchSpec a;
  a.architecture = &architecture_of_gguf(gguf.get_string("general.architecture"), origin);
  const auto key = [&](std::string_view name) { return key_of(a, name); };
  if (gguf.optional_u32(key("expert_count")).value_or(0) > 0)
    throw Unsupported("{}: mixtures of experts are not supported", origin);
  const auto dim = [&](const char* name) {
    const std::int64_t value = gguf.get_u32(key(name));
    if (value < 1 || value > kMaxDim) throw BadFile("{}: {}: expected 1 to {}, found {}", origin, key(name), kMaxDim, value);
    return value;
  };
  const auto optional_dim = [&](const char* name) { return gguf.find_value(key(name)) ? dim(name) : 0; };
  a.hidden_size = dim("embedding_length");
  a.intermediate_size = dim("feed_forward_length");
  a.num_layers = dim("block_count");
  if (a.num_layers > 10000) throw BadFile("{}: {}: found {}", origin, key("block_count"), a.num_layers);
  a.num_heads = dim("attention.head_count");
  a.num_kv_heads = gguf.find_value(key("attention.head_count_kv")) ? dim("attention.head_count_kv") : a.num_heads;
  a.head_dim = optional_dim("attention.key_length");
  a.rotated = optional_dim("rope.dimension_count");
  a.max_positions = dim("context_length");
  a.rms_norm_eps = gguf.get_f32(key("attention.layer_norm_rms_epsilon"));
  a.rope.theta = gguf.optional_f32(key("rope.freq_base")).value_or(10000.0f);
  a.local_rope.theta = gguf.optional_f32(key("rope.freq_base_swa")).value_or(10000.0f);
  read_scaling(gguf, a);
  read_layers(gguf, a);
  if (a.architecture->post_norms) {  // Gemma: the largest of each generation scales by its hidden size per head
    const bool largest = a.num_layers == (a.architecture->gguf == "gemma2" ? 46 : 62);
    if (largest) a.attention_scale = 1.0f / std::sqrt(static_cast<float>(a.hidden_size / a.num_heads));
  }
  const float default_cap = a.architecture->gguf == "gemma2" ? 50.0f : 0.0f;
  a.attention_softcap = gguf.optional_f32(key("attn_logit_softcapping")).value_or(default_cap);
  a.logit_softcap = gguf.optional_f32(key("final_logit_softcapping")).value_or(default_cap > 0 ? 30.0f : 0.0f);
  const files::GgufTensor* embedding = gguf.find("token_embd.weight");
  if (!embedding || embedding->shape.rank() != 2)
    throw BadFile("{}: token_embd.weight: expected a matrix, found none", origin);
  a.vocab_size = embedding->shape[0];
  a.tied = gguf.find("output.weight") == nullptr;
  if (const auto id = gguf.optional_u32("tokenizer.ggml.bos_token_id")) a.bos_id = *id;
  if (const auto id = gguf.optional_u32("tokenizer.ggml.padding_token_id")) a.pad_id = *id;
  if (const auto id = gguf.optional_u32("tokenizer.ggml.eos_token_id")) a.eos_ids.push_back(*id);
  complete_arch(a, origin);
  return a;
}

void write_gguf_arch(const ArchSpec& a, files::GgufWriter& writer) {
  const auto u32 = [&](std::string_view key, std::int64_t value) {
    writer.add_u32(key_of(a, key), static_cast<std::uint32_t>(value));
  };
  const auto f32 = [&](std::string_view key, double value) { writer.add_f32(key_of(a, key), static_cast<float>(value)); };
  writer.add_string("general.architecture", a.architecture->gguf);
  u32("block_count", a.num_layers);
  u32("context_length", a.max_positions);
  u32("embedding_length", a.hidden_size);
  u32("feed_forward_length", a.intermediate_size);
  u32("attention.head_count", a.num_heads);
  u32("attention.head_count_kv", a.num_kv_heads);
  u32("attention.key_length", a.head_dim);
  u32("attention.value_length", a.head_dim);
  u32("rope.dimension_count", a.rotated);
  u32("vocab_size", a.vocab_size);
  f32("attention.layer_norm_rms_epsilon", a.rms_norm_eps);
  f32("rope.freq_base", a.rope.theta);
  if (a.rope.kind == RopeKind::Linear || a.rope.kind == RopeKind::Yarn) {
    const bool yarn = a.rope.kind == RopeKind::Yarn;
    writer.add_string(key_of(a, "rope.scaling.type"), yarn ? "yarn" : "linear");
    f32("rope.scaling.factor", a.rope.factor);
    if (yarn) {
      u32("rope.scaling.original_context_length", a.rope.original_max_positions);
      f32("rope.scaling.yarn_beta_fast", a.rope.beta_fast);
      f32("rope.scaling.yarn_beta_slow", a.rope.beta_slow);
      f32("rope.scaling.attn_factor", a.rope.attention_factor / yarn_attention_factor(a.rope.factor));
    }
  }
  if (a.rope.kind == RopeKind::LongRope) {  // its factors are tensors
    u32("rope.scaling.original_context_length", a.rope.original_max_positions);
    f32("rope.scaling.attn_factor", a.rope.attention_factor);
  }
  if (a.any_layer(LayerRope::Local)) f32("rope.freq_base_swa", a.local_rope.theta);
  if (a.sliding_window > 0 && a.architecture->gguf != "llama") {
    u32("attention.sliding_window", a.sliding_window);
    if (a.architecture->post_norms) {
      const std::unique_ptr<bool[]> windowed(new bool[a.layers.size()]);
      for (std::size_t i = 0; i < a.layers.size(); ++i) windowed[i] = a.layers[i].windowed;
      writer.add_bool_array(key_of(a, "attention.sliding_window_pattern"), {windowed.get(), a.layers.size()});
    }
  }
  if (a.attention_softcap > 0) f32("attn_logit_softcapping", a.attention_softcap);
  if (a.logit_softcap > 0) f32("final_logit_softcapping", a.logit_softcap);
}

}  // namespace temper::model
