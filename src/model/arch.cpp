#include "model/arch.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "base/parallel.h"
#include "files/json.h"
#include "tensor/tensor.h"

namespace temper::model {
namespace {

using files::Json;

constexpr std::int64_t kMaxDim = std::int64_t{1} << 24;  // no known model comes near; guards products against overflow

struct KnownArchitecture {
  std::string_view class_name, model_type;
};
constexpr std::array<KnownArchitecture, 2> kKnown = {{{"LlamaForCausalLM", "llama"}, {"MistralForCausalLM", "mistral"}}};

std::string model_type_of(const Json& config, const std::string& origin) {
  const std::string model_type = files::require_string(config, "model_type", origin);
  for (const KnownArchitecture& known : kKnown)
    if (model_type == known.model_type) return model_type;
  throw Unsupported("{}: model_type \"{}\": temper knows llama (SmolLM2, Llama 2 and 3) and mistral; the nearest is llama",
                    origin, model_type);
}

/// Options of the family that change the arithmetic and that we do not have.
void refuse_unknown_options(const Json& config, const std::string& origin) {
  for (const char* key : {"attention_bias", "mlp_bias"})
    if (files::optional_bool(config, key, origin).value_or(false))
      throw Unsupported("{}: {} = true: blocks with biases are not supported", origin, key);
  const std::string activation = files::optional_string(config, "hidden_act", origin).value_or("silu");
  if (activation != "silu" && activation != "swish")
    throw Unsupported("{}: hidden_act \"{}\": expected \"silu\"", origin, activation);
}

RopeSpec rope_from_hf(const Json& config, const std::string& origin) {
  RopeSpec rope;
  // transformers 5 writes rope_parameters; 4 wrote rope_theta and rope_scaling.
  const Json* parameters = files::optional_object(config, "rope_parameters", origin);
  const Json* scaling = parameters ? parameters : files::optional_object(config, "rope_scaling", origin);
  rope.theta = files::optional_number(parameters ? *parameters : config, "rope_theta", origin, 1.0, 1e15).value_or(10000.0);
  if (!scaling) return rope;
  const auto type_key = files::find_key(*scaling, "rope_type") ? "rope_type" : "type";
  const std::string type = files::optional_string(*scaling, type_key, origin).value_or("default");
  if (type == "default") return rope;
  rope.factor = files::require_number(*scaling, "factor", origin, 1e-3, 1e6);
  if (type == "linear") {
    rope.kind = RopeKind::Linear;
  } else if (type == "llama3") {
    rope.kind = RopeKind::Llama3;
    rope.low_freq_factor = files::require_number(*scaling, "low_freq_factor", origin, 1e-3, 1e6);
    rope.high_freq_factor = files::require_number(*scaling, "high_freq_factor", origin, 1e-3, 1e6);
    rope.original_max_positions = files::require_int(*scaling, "original_max_position_embeddings", origin, 1, kMaxDim);
    if (rope.high_freq_factor <= rope.low_freq_factor)
      throw BadFile("{}: rope high_freq_factor {} must exceed low_freq_factor {}", origin, rope.high_freq_factor,
                    rope.low_freq_factor);
  } else {
    throw Unsupported("{}: rope type \"{}\": expected default, linear or llama3", origin, type);
  }
  return rope;
}

std::vector<std::int64_t> eos_from_hf(const Json& config, const std::string& origin) {
  const Json* eos = files::find_key(config, "eos_token_id");
  if (!eos) return {};
  std::vector<std::int64_t> ids;
  for (const Json& id : eos->is_array() ? *eos : Json::array({*eos})) {
    if (!id.is_number_integer())
      throw BadFile("{}: eos_token_id: expected an integer or a list of them, found {}", origin, files::describe(id));
    ids.push_back(id.get<std::int64_t>());
  }
  return ids;
}

void check_dimensions(const ArchSpec& a, const std::string& origin) {
  if (a.num_heads % a.num_kv_heads != 0)
    throw BadFile("{}: {} attention heads are no multiple of {} key/value heads", origin, a.num_heads, a.num_kv_heads);
  if (a.head_dim % 2 != 0) throw BadFile("{}: head_dim {} is odd; rotary positions need pairs", origin, a.head_dim);
}

std::int64_t default_head_dim(std::int64_t hidden, std::int64_t heads, const std::string& origin) {
  if (hidden % heads != 0)
    throw BadFile("{}: hidden size {} is no multiple of {} heads, and no head_dim is given", origin, hidden, heads);
  return hidden / heads;
}

}  // namespace

ArchSpec arch_from_hf_config(const Json& config, const std::string& origin) {
  if (!config.is_object()) throw BadFile("{}: expected a JSON object, found {}", origin, files::describe(config));
  ArchSpec a;
  a.model_type = model_type_of(config, origin);
  refuse_unknown_options(config, origin);
  const auto dim = [&](const char* key) { return files::require_int(config, key, origin, 1, kMaxDim); };
  a.hidden_size = dim("hidden_size");
  a.intermediate_size = dim("intermediate_size");
  a.num_layers = files::require_int(config, "num_hidden_layers", origin, 1, 10000);
  a.num_heads = dim("num_attention_heads");
  a.num_kv_heads = files::optional_int(config, "num_key_value_heads", origin, 1, kMaxDim).value_or(a.num_heads);
  const auto head_dim = files::optional_int(config, "head_dim", origin, 2, kMaxDim);
  a.head_dim = head_dim ? *head_dim : default_head_dim(a.hidden_size, a.num_heads, origin);
  a.vocab_size = dim("vocab_size");
  a.max_positions = files::optional_int(config, "max_position_embeddings", origin, 1, kMaxDim * 16).value_or(2048);
  a.rms_norm_eps = static_cast<float>(files::optional_number(config, "rms_norm_eps", origin, 0.0, 1.0).value_or(1e-6));
  a.rope = rope_from_hf(config, origin);
  if (a.model_type == "mistral")
    a.sliding_window = files::optional_int(config, "sliding_window", origin, 0, kMaxDim * 16).value_or(0);
  a.tied = files::optional_bool(config, "tie_word_embeddings", origin).value_or(false);
  if (const Json* bos = files::find_key(config, "bos_token_id"); bos && bos->is_number_integer())
    a.bos_id = bos->get<std::int64_t>();
  if (const Json* pad = files::find_key(config, "pad_token_id"); pad && pad->is_number_integer())
    a.pad_id = pad->get<std::int64_t>();
  a.eos_ids = eos_from_hf(config, origin);
  check_dimensions(a, origin);
  return a;
}

ArchSpec arch_from_gguf(const files::GgufFile& gguf) {
  const std::string& origin = gguf.origin();
  const std::string_view architecture = gguf.get_string("general.architecture");
  if (architecture != "llama")
    throw Unsupported("{}: general.architecture \"{}\": temper knows llama (SmolLM2, Llama 2 and 3, Mistral)", origin,
                      architecture);
  if (gguf.optional_u32("llama.expert_count").value_or(0) > 0)
    throw Unsupported("{}: mixtures of experts are not supported", origin);
  const auto dim = [&](const char* key) {
    const std::int64_t value = gguf.get_u32(key);
    if (value < 1 || value > kMaxDim) throw BadFile("{}: {}: expected 1 to {}, found {}", origin, key, kMaxDim, value);
    return value;
  };
  ArchSpec a;
  a.model_type = "llama";
  a.hidden_size = dim("llama.embedding_length");
  a.intermediate_size = dim("llama.feed_forward_length");
  a.num_layers = dim("llama.block_count");
  if (a.num_layers > 10000) throw BadFile("{}: llama.block_count: found {}", origin, a.num_layers);
  a.num_heads = dim("llama.attention.head_count");
  a.num_kv_heads = gguf.find_value("llama.attention.head_count_kv") ? dim("llama.attention.head_count_kv") : a.num_heads;
  a.head_dim = gguf.find_value("llama.attention.key_length") ? dim("llama.attention.key_length")
                                                             : default_head_dim(a.hidden_size, a.num_heads, origin);
  const std::int64_t rotated =
      gguf.optional_u32("llama.rope.dimension_count").value_or(static_cast<std::uint32_t>(a.head_dim));
  if (rotated != a.head_dim)
    throw Unsupported("{}: llama.rope.dimension_count {}: only rotation of whole heads ({}) is supported", origin, rotated,
                      a.head_dim);
  a.max_positions = dim("llama.context_length");
  a.rms_norm_eps = gguf.get_f32("llama.attention.layer_norm_rms_epsilon");
  a.rope.theta = gguf.optional_f32("llama.rope.freq_base").value_or(10000.0f);
  if (const auto type = gguf.optional_string("llama.rope.scaling.type"); type && *type != "none") {
    if (*type != "linear") throw Unsupported("{}: llama.rope.scaling.type \"{}\": expected none or linear", origin, *type);
    a.rope.kind = RopeKind::Linear;
    a.rope.factor = gguf.get_f32("llama.rope.scaling.factor");
  }
  const files::GgufTensor* embedding = gguf.find("token_embd.weight");
  if (!embedding || embedding->shape.rank() != 2)
    throw BadFile("{}: token_embd.weight: expected a matrix, found none", origin);
  a.vocab_size = embedding->shape[0];
  a.tied = gguf.find("output.weight") == nullptr;
  if (const auto id = gguf.optional_u32("tokenizer.ggml.bos_token_id")) a.bos_id = *id;
  if (const auto id = gguf.optional_u32("tokenizer.ggml.padding_token_id")) a.pad_id = *id;
  if (const auto id = gguf.optional_u32("tokenizer.ggml.eos_token_id")) a.eos_ids.push_back(*id);
  check_dimensions(a, origin);
  return a;
}

Json hf_config(const ArchSpec& a) {
  const bool mistral = a.model_type == "mistral";
  Json scaling = nullptr;
  if (a.rope.kind == RopeKind::Linear) scaling = {{"rope_type", "linear"}, {"factor", a.rope.factor}};
  if (a.rope.kind == RopeKind::Llama3)
    scaling = {{"rope_type", "llama3"},
               {"factor", a.rope.factor},
               {"low_freq_factor", a.rope.low_freq_factor},
               {"high_freq_factor", a.rope.high_freq_factor},
               {"original_max_position_embeddings", a.rope.original_max_positions}};
  // Both spellings: transformers 4 reads rope_theta, rope_scaling and torch_dtype, 5 reads rope_parameters and dtype.
  Json parameters = scaling.is_null() ? Json{{"rope_type", "default"}} : scaling;
  parameters["rope_theta"] = a.rope.theta;
  const char* dtype = a.dtype == DType::F32 ? "float32" : a.dtype == DType::F16 ? "float16" : "bfloat16";
  Json config = {{"architectures", {mistral ? "MistralForCausalLM" : "LlamaForCausalLM"}},
                 {"model_type", a.model_type},
                 {"hidden_size", a.hidden_size},
                 {"intermediate_size", a.intermediate_size},
                 {"num_hidden_layers", a.num_layers},
                 {"num_attention_heads", a.num_heads},
                 {"num_key_value_heads", a.num_kv_heads},
                 {"head_dim", a.head_dim},
                 {"vocab_size", a.vocab_size},
                 {"max_position_embeddings", a.max_positions},
                 {"rms_norm_eps", std::strtod(fmt::format("{}", a.rms_norm_eps).c_str(), nullptr)},
                 {"hidden_act", "silu"},
                 {"rope_theta", a.rope.theta},
                 {"rope_scaling", scaling},
                 {"rope_parameters", parameters},
                 {"tie_word_embeddings", a.tied},
                 {"dtype", dtype},
                 {"torch_dtype", dtype},
                 {"use_cache", true}};
  if (mistral) {
    config["sliding_window"] = a.sliding_window > 0 ? Json(a.sliding_window) : Json(nullptr);
  } else {
    config["attention_bias"] = false;
    config["mlp_bias"] = false;
  }
  config["bos_token_id"] = a.bos_id ? Json(*a.bos_id) : Json(nullptr);
  config["pad_token_id"] = a.pad_id ? Json(*a.pad_id) : Json(nullptr);
  config["eos_token_id"] = a.eos_ids.empty() ? Json(nullptr) : a.eos_ids.size() == 1 ? Json(a.eos_ids[0]) : Json(a.eos_ids);
  return config;
}

std::vector<float> rope_factors(const RopeSpec& rope, std::int64_t head_dim) {
  if (!rope.factors.empty()) return rope.factors;
  if (rope.kind == RopeKind::Default) return {};
  std::vector<float> factors(static_cast<std::size_t>(head_dim / 2), static_cast<float>(rope.factor));
  if (rope.kind == RopeKind::Linear) return factors;
  const double original = static_cast<double>(rope.original_max_positions);
  const double long_wave = original / rope.low_freq_factor, short_wave = original / rope.high_freq_factor;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    const double wave =
        2 * std::numbers::pi * std::pow(rope.theta, 2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    if (wave < short_wave) factors[i] = 1.0f;
    if (wave < short_wave || wave > long_wave) continue;
    const double smooth = (original / wave - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
    factors[i] = static_cast<float>(1.0 / ((1.0 - smooth) / rope.factor + smooth));
  }
  return factors;
}

RopeTable rope_table(const ArchSpec& arch, std::int64_t positions) {
  const std::int64_t half = arch.head_dim / 2;
  RopeTable table{Tensor(DType::F32, {positions, half}), Tensor(DType::F32, {positions, half})};
  const std::vector<float> factors = rope_factors(arch.rope, arch.head_dim);
  std::vector<double> frequency(static_cast<std::size_t>(half));
  for (std::int64_t i = 0; i < half; ++i) {
    const std::size_t at = static_cast<std::size_t>(i);
    frequency[at] = std::pow(arch.rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(arch.head_dim));
    if (!factors.empty()) frequency[at] /= factors[at];
  }
  float* cos = table.cos.view().as<float>();
  float* sin = table.sin.view().as<float>();
  parallel_for(positions, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p)
      for (std::int64_t i = 0; i < half; ++i) {
        // HF computes the frequency in f32; the angle in f32 then loses digits at long positions, which double keeps.
        const double angle = static_cast<double>(p) * frequency[static_cast<std::size_t>(i)];
        cos[p * half + i] = static_cast<float>(std::cos(angle));
        sin[p * half + i] = static_cast<float>(std::sin(angle));
      }
  });
  return table;
}

}  // namespace temper::model
