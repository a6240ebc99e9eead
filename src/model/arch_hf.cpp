// ArchSpec from and to transformers' config.json.
#include <cmath>

#include "base/error.h"
#include "files/json.h"
#include "model/arch.h"

namespace temper::model {
namespace {

using files::Json;

constexpr const char* kSliding = "sliding_attention";
constexpr const char* kFull = "full_attention";

/// Options of the families that change the arithmetic and that we do not have.
void refuse_unknown_options(const Json& config, const Architecture& family, const std::string& origin) {
  for (const char* key : {"attention_bias", "mlp_bias", "use_bidirectional_attention"})
    if (files::optional_bool(config, key, origin).value_or(false))
      throw Unsupported("{}: {} = true is not supported for {}", origin, key, family.model_type);
  const bool gelu = family.gate == ops::Gate::GeluTanh;
  const char* key = gelu ? "hidden_activation" : "hidden_act";
  const std::string fallback = gelu ? "gelu_pytorch_tanh" : "silu";
  const std::string activation = files::optional_string(config, key, origin).value_or(fallback);
  const bool known = activation == fallback || activation == (gelu ? "gelu_new" : "swish");
  if (!known) throw Unsupported("{}: {} \"{}\": expected \"{}\"", origin, key, activation, fallback);
}

std::vector<float> factors_of(const Json& scaling, const char* key, const std::string& origin) {
  std::vector<float> out;
  for (const Json& x : files::require_array(scaling, key, origin)) {
    if (!x.is_number()) throw BadFile("{}: {}: expected numbers, found {}", origin, key, files::describe(x));
    out.push_back(x.get<float>());
    if (!(out.back() > 0)) throw BadFile("{}: {}: expected factors above 0, found {}", origin, key, out.back());
  }
  return out;
}

/// The stretch of a scaling object (rope_scaling of transformers 4, rope_parameters of 5) over `rope`.
void read_scaling(const Json& config, const Json& scaling, const std::string& origin, RopeSpec& rope) {
  const auto type_key = files::find_key(scaling, "rope_type") ? "rope_type" : "type";
  const std::string type = files::optional_string(scaling, type_key, origin).value_or("default");
  if (type == "default") return;
  const auto number = [&](const char* key) { return files::optional_number(scaling, key, origin, 1e-3, 1e6); };
  const double positions =
      static_cast<double>(files::optional_int(config, "max_position_embeddings", origin, 1, kMaxDim * 16).value_or(2048));
  const auto original = [&] {
    const Json& holder = files::find_key(scaling, "original_max_position_embeddings") ? scaling : config;
    return files::require_int(holder, "original_max_position_embeddings", origin, 2, kMaxDim * 16);
  };
  if (type == "linear") {
    rope.kind = RopeKind::Linear;
    rope.factor = files::require_number(scaling, "factor", origin, 1e-3, 1e6);
  } else if (type == "llama3") {
    rope.kind = RopeKind::Llama3;
    rope.factor = files::require_number(scaling, "factor", origin, 1e-3, 1e6);
    rope.low_freq_factor = files::require_number(scaling, "low_freq_factor", origin, 1e-3, 1e6);
    rope.high_freq_factor = files::require_number(scaling, "high_freq_factor", origin, 1e-3, 1e6);
    rope.original_max_positions = original();
    if (rope.high_freq_factor <= rope.low_freq_factor)
      throw BadFile("{}: rope high_freq_factor {} must exceed low_freq_factor {}", origin, rope.high_freq_factor,
                    rope.low_freq_factor);
  } else if (type == "yarn") {
    rope.kind = RopeKind::Yarn;
    rope.original_max_positions = original();
    rope.factor = number("factor").value_or(positions / static_cast<double>(rope.original_max_positions));
    rope.beta_fast = number("beta_fast").value_or(32.0);
    rope.beta_slow = number("beta_slow").value_or(1.0);
    rope.truncate = files::optional_bool(scaling, "truncate", origin).value_or(true);
    if (number("mscale") || number("mscale_all_dim"))
      throw Unsupported("{}: rope mscale is not supported (only attention_factor)", origin);
    rope.attention_factor = number("attention_factor").value_or(yarn_attention_factor(rope.factor));
  } else if (type == "longrope" || type == "su") {
    rope.kind = RopeKind::LongRope;
    rope.original_max_positions = original();
    rope.factor = number("factor").value_or(positions / static_cast<double>(rope.original_max_positions));
    rope.short_factors = factors_of(scaling, "short_factor", origin);
    rope.long_factors = factors_of(scaling, "long_factor", origin);
    rope.attention_factor =
        number("attention_factor").value_or(longrope_attention_factor(rope.factor, rope.original_max_positions));
  } else {
    throw Unsupported("{}: rope type \"{}\": expected default, linear, llama3, yarn or longrope", origin, type);
  }
  if (files::find_key(scaling, "llama_4_scaling_beta"))
    throw Unsupported("{}: rope llama_4_scaling_beta (queries scaled by position) is not supported", origin);
}

void read_rope(const Json& config, const std::string& origin, ArchSpec& a) {
  // transformers 5 writes rope_parameters, by kind of layer where these differ; 4 wrote rope_theta and rope_scaling.
  const Json* parameters = files::optional_object(config, "rope_parameters", origin);
  const auto by_layer = [&](const char* kind) {
    return parameters ? files::optional_object(*parameters, kind, origin) : nullptr;
  };
  const Json* global = by_layer(kFull) ? by_layer(kFull) : parameters;
  const auto theta = [&](const Json& holder, const char* key) {
    return files::optional_number(holder, key, origin, 1.0, 1e15);
  };
  a.rope.theta = theta(global ? *global : config, "rope_theta").value_or(10000.0);
  const Json* scaling = global ? global : files::optional_object(config, "rope_scaling", origin);
  if (scaling) read_scaling(config, *scaling, origin, a.rope);
  // Gemma 3: layers with a window turn by a base of their own, never stretched.
  if (const Json* local = by_layer(kSliding))
    a.local_rope.theta = theta(*local, "rope_theta").value_or(10000.0);
  else
    a.local_rope.theta = theta(config, "rope_local_base_freq").value_or(10000.0);
  const Json& fraction_holder = global && files::find_key(*global, "partial_rotary_factor") ? *global : config;
  const double fraction = files::optional_number(fraction_holder, "partial_rotary_factor", origin, 0.0, 1.0).value_or(1.0);
  a.rotated = static_cast<std::int64_t>(static_cast<double>(a.head_dim) * fraction);
}

/// layer_types, where the config lists them.
bool read_layer_types(const Json& config, const std::string& origin, ArchSpec& a) {
  const Json* types = files::optional_array(config, "layer_types", origin);
  if (!types) return false;
  if (std::ssize(*types) != a.num_layers)
    throw BadFile("{}: layer_types: expected {} entries, found {}", origin, a.num_layers, types->size());
  for (std::size_t i = 0; i < types->size(); ++i) {
    const Json& type = (*types)[i];
    if (!type.is_string() || (type != kSliding && type != kFull))
      throw Unsupported("{}: layer_types: expected \"{}\" or \"{}\", found {}", origin, kSliding, kFull,
                        files::describe(type));
    a.layers[i].windowed = type == kSliding;
  }
  return true;
}

/// Which layers have a window, and which turn their queries and keys by which table.
void read_layers(const Json& config, const std::string& origin, ArchSpec& a) {
  const std::string_view type = a.architecture->model_type;
  a.layers.resize(static_cast<std::size_t>(a.num_layers));
  const auto integer = [&](const char* key) { return files::optional_int(config, key, origin, 0, kMaxDim * 16); };
  if (type == "llama") return;
  a.sliding_window = integer("sliding_window").value_or(0);
  const bool optional_window = type == "qwen2" || type == "qwen3" || type == "smollm3";
  if (optional_window && !files::optional_bool(config, "use_sliding_window", origin).value_or(false)) a.sliding_window = 0;
  if (type == "smollm3") {
    const Json* listed = files::optional_array(config, "no_rope_layers", origin);
    const std::int64_t interval = files::optional_int(config, "no_rope_layer_interval", origin, 1, 10000).value_or(4);
    if (listed && std::ssize(*listed) != a.num_layers)
      throw BadFile("{}: no_rope_layers: expected {} entries, found {}", origin, a.num_layers, listed->size());
    for (std::size_t i = 0; i < a.layers.size(); ++i) {  // a 1 there means that the layer does turn
      const bool turns = listed ? (*listed)[i] == 1 : (static_cast<std::int64_t>(i) + 1) % interval != 0;
      a.layers[i].rope = turns ? LayerRope::Global : LayerRope::None;
      a.layers[i].windowed = !turns;
    }
  }
  const bool listed = read_layer_types(config, origin, a);
  const std::int64_t first_windowed = integer("max_window_layers").value_or(28);
  const std::int64_t pattern =
      type == "gemma2"
          ? 2
          : integer(files::find_key(config, "sliding_window_pattern") ? "sliding_window_pattern" : "_sliding_window_pattern")
                .value_or(6);
  for (std::size_t i = 0; i < a.layers.size(); ++i) {
    const auto index = static_cast<std::int64_t>(i);
    LayerSpec& layer = a.layers[i];
    if (!listed && type.starts_with("qwen")) layer.windowed = index >= first_windowed;
    if (!listed && type.starts_with("gemma")) layer.windowed = pattern > 0 && (index + 1) % pattern != 0;
    if (!listed && (type.ends_with("mistral") || type == "ministral" || type == "phi3")) layer.windowed = true;
    if (type == "gemma3_text" && layer.windowed) layer.rope = LayerRope::Local;
  }
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

Json rope_json(const RopeSpec& rope) {
  Json json = {{"rope_type", "default"}};
  switch (rope.kind) {
    case RopeKind::Default: break;
    case RopeKind::Linear: json = {{"rope_type", "linear"}, {"factor", rope.factor}}; break;
    case RopeKind::Llama3:
      json = {{"rope_type", "llama3"},
              {"factor", rope.factor},
              {"low_freq_factor", rope.low_freq_factor},
              {"high_freq_factor", rope.high_freq_factor},
              {"original_max_position_embeddings", rope.original_max_positions}};
      break;
    case RopeKind::Yarn:
      json = {{"rope_type", "yarn"},
              {"factor", rope.factor},
              {"beta_fast", rope.beta_fast},
              {"beta_slow", rope.beta_slow},
              {"attention_factor", rope.attention_factor},
              {"truncate", rope.truncate},
              {"original_max_position_embeddings", rope.original_max_positions}};
      break;
    case RopeKind::LongRope:
      json = {{"rope_type", "longrope"},
              {"factor", rope.factor},
              {"attention_factor", rope.attention_factor},
              {"short_factor", rope.short_factors},
              {"long_factor", rope.long_factors},
              {"original_max_position_embeddings", rope.original_max_positions}};
      break;
  }
  return json;
}

/// What a family states beyond dimensions.
void add_family_keys(const ArchSpec& a, Json& config) {
  const std::string_view type = a.architecture->model_type;
  if (type == "llama") {
    config["attention_bias"] = false;
    config["mlp_bias"] = false;
    return;
  }
  config["sliding_window"] = a.sliding_window > 0 ? Json(a.sliding_window) : Json(nullptr);
  if (type == "mistral" || type == "phi3") return;
  Json types = Json::array();
  for (const LayerSpec& layer : a.layers) types.push_back(layer.windowed ? kSliding : kFull);
  config["layer_types"] = std::move(types);
  if (type.starts_with("qwen") || type == "smollm3") config["use_sliding_window"] = a.sliding_window > 0;
  if (type == "smollm3") {
    Json turns = Json::array();
    for (const LayerSpec& layer : a.layers) turns.push_back(layer.rope == LayerRope::None ? 0 : 1);
    config["no_rope_layers"] = std::move(turns);
  }
  if (!type.starts_with("gemma")) return;
  config.erase("hidden_act");
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["query_pre_attn_scalar"] = std::round(1.0 / (double{a.attention_scale} * a.attention_scale));
  const auto cap = [](float value) { return value > 0 ? Json(value) : Json(nullptr); };
  config["attn_logit_softcapping"] = cap(a.attention_softcap);
  config["final_logit_softcapping"] = cap(a.logit_softcap);
}

}  // namespace

ArchSpec arch_from_hf_config(const Json& whole, const std::string& origin) {
  if (!whole.is_object()) throw BadFile("{}: expected a JSON object, found {}", origin, files::describe(whole));
  const Json* text = files::optional_object(whole, "text_config", origin);  // of a model that sees images, too
  const Json& config = text ? *text : whole;
  ArchSpec a;
  const std::string type = files::require_string(config, "model_type", origin);
  a.architecture = &architecture_of_hf(type == "gemma3" ? "gemma3_text" : type, origin);
  refuse_unknown_options(config, *a.architecture, origin);
  const auto dim = [&](const char* key) { return files::require_int(config, key, origin, 1, kMaxDim); };
  a.hidden_size = dim("hidden_size");
  a.intermediate_size = dim("intermediate_size");
  a.num_layers = files::require_int(config, "num_hidden_layers", origin, 1, 10000);
  a.num_heads = dim("num_attention_heads");
  a.num_kv_heads = files::optional_int(config, "num_key_value_heads", origin, 1, kMaxDim).value_or(a.num_heads);
  a.head_dim = files::optional_int(config, "head_dim", origin, 2, kMaxDim).value_or(0);
  a.vocab_size = dim("vocab_size");
  a.max_positions = files::optional_int(config, "max_position_embeddings", origin, 1, kMaxDim * 16).value_or(2048);
  a.rms_norm_eps = static_cast<float>(files::optional_number(config, "rms_norm_eps", origin, 0.0, 1.0).value_or(1e-6));
  complete_arch(a, origin);  // head_dim, which the rest needs
  read_rope(config, origin, a);
  read_layers(config, origin, a);
  if (const auto scalar = files::optional_number(config, "query_pre_attn_scalar", origin, 1e-3, 1e9))
    a.attention_scale = static_cast<float>(1.0 / std::sqrt(*scalar));
  const auto cap = [&](const char* key) {
    return static_cast<float>(files::optional_number(config, key, origin, 0.0, 1e6).value_or(0.0));
  };
  a.attention_softcap = cap("attn_logit_softcapping");
  a.logit_softcap = cap("final_logit_softcapping");
  const Json& tying = files::find_key(config, "tie_word_embeddings") ? config : whole;
  a.tied = files::optional_bool(tying, "tie_word_embeddings", origin).value_or(a.architecture->tied_by_default);
  if (const Json* bos = files::find_key(config, "bos_token_id"); bos && bos->is_number_integer())
    a.bos_id = bos->get<std::int64_t>();
  if (const Json* pad = files::find_key(config, "pad_token_id"); pad && pad->is_number_integer())
    a.pad_id = pad->get<std::int64_t>();
  a.eos_ids = eos_from_hf(config, origin);
  complete_arch(a, origin);
  return a;
}

Json hf_config(const ArchSpec& a) {
  // Both spellings: transformers 4 reads rope_theta, rope_scaling and torch_dtype, 5 reads rope_parameters and dtype.
  Json parameters = rope_json(a.rope);
  const Json scaling = a.rope.kind == RopeKind::Default ? Json(nullptr) : parameters;
  parameters["rope_theta"] = a.rope.theta;
  if (a.rotated != a.head_dim)
    parameters["partial_rotary_factor"] = static_cast<double>(a.rotated) / static_cast<double>(a.head_dim);
  const char* dtype = a.dtype == DType::F32 ? "float32" : a.dtype == DType::F16 ? "float16" : "bfloat16";
  Json config = {{"architectures", {a.architecture->class_name}},
                 {"model_type", a.architecture->model_type},
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
  if (a.rotated != a.head_dim) config["partial_rotary_factor"] = parameters["partial_rotary_factor"];
  if (a.rope.kind == RopeKind::LongRope) config["original_max_position_embeddings"] = a.rope.original_max_positions;
  if (a.architecture->model_type == "gemma3_text") {
    config["rope_local_base_freq"] = a.local_rope.theta;
    config["rope_parameters"] = {{kFull, parameters},
                                 {kSliding, {{"rope_type", "default"}, {"rope_theta", a.local_rope.theta}}}};
  }
  add_family_keys(a, config);
  config["bos_token_id"] = a.bos_id ? Json(*a.bos_id) : Json(nullptr);
  config["pad_token_id"] = a.pad_id ? Json(*a.pad_id) : Json(nullptr);
  config["eos_token_id"] = a.eos_ids.empty() ? Json(nullptr) : a.eos_ids.size() == 1 ? Json(a.eos_ids[0]) : Json(a.eos_ids);
  return config;
}

}  // namespace temper::model
