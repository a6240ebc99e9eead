#include "model/peft.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include "base/atomic_file.h"
#include "base/error.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "model/peft_fused.h"
#include "model/trained_weights.h"

namespace temper::model {
namespace {

using files::Json;

constexpr const char* kConfigName = "adapter_config.json";
constexpr const char* kWeightsName = "adapter_model.safetensors";
constexpr const char* kFingerprintKey = "temper.base_fingerprint";
/// Which parts of fused matrices have adapters of their own (peft_fused.h).
constexpr const char* kPartsKey = "temper.adapted_parts";

/// Of m, which peft writes without ".weight".
constexpr const char* kMagnitude = "lora_magnitude_vector";

/// A, B and magnitudes of a module by their names: "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", …
std::vector<std::pair<std::string, TensorView>> named(const PeftModule& module, const TensorView& a, const TensorView& b,
                                                      const TensorView& magnitude) {
  const std::string prefix = fmt::format("base_model.model.{}.", module.name);
  std::vector<std::pair<std::string, TensorView>> tensors = {{prefix + "lora_A.weight", a}, {prefix + "lora_B.weight", b}};
  if (magnitude) tensors.emplace_back(prefix + kMagnitude, magnitude);
  return tensors;
}

/// The same of a module that is one adapter.
std::vector<std::pair<std::string, TensorView>> named(const PeftModule& module) {
  const Adapters::Entry& entry = *module.parts.front();
  return named(module, entry.a, entry.b, entry.magnitude);
}

std::vector<std::string> sorted_modules(const LoraConfig& config) {
  std::set<std::string> modules(config.target_modules.begin(), config.target_modules.end());
  if (modules.empty())
    for (const Linear linear : kLinears) modules.emplace(module_name(linear));
  return {modules.begin(), modules.end()};
}

std::string bias_name(LoraBias bias) {
  return bias == LoraBias::None ? "none" : bias == LoraBias::All ? "all" : "lora_only";
}

/// "model.embed_tokens" as "embed_tokens": peft matches modules by the ends of their names.
std::string last_part(const std::string& module) { return module.substr(module.rfind('.') + 1); }

/// Names of a tensor that is trained beside adapters; of a tied table two.
std::vector<std::string> names_beside(const TensorTable& table, const Adapters& adapters, std::size_t index) {
  const TensorInfo& info = table[index];
  std::string name = "base_model.model." + info.hf_name;
  if (index == table.embedding() && index == table.head()) return {name, "base_model.model.lm_head.weight"};
  constexpr std::string_view kBias = ".bias";
  if (!info.hf_name.ends_with(kBias)) return {name};
  const std::string weight = info.hf_name.substr(0, info.hf_name.size() - kBias.size()) + ".weight";
  const bool adapted = std::ranges::any_of(
      adapters.entries(), [&](const Adapters::Entry& entry) { return table[entry.tensor].hf_name == weight; });
  if (adapted) name.insert(name.size() - kBias.size(), ".base_layer");
  return {name};
}

/// 16.0 as 16, which is how peft's users write it.
Json number(double value) {
  if (std::nearbyint(value) == value && std::abs(value) < 1e15) return static_cast<std::int64_t>(value);
  return value;
}

template <typename Value>
Json pattern_json(const ModulePattern<Value>& pattern) {
  Json json = Json::object();
  for (const auto& [key, value] : pattern) json[key] = number(static_cast<double>(value));
  return json;
}

nlohmann::ordered_json config_json(const LoraConfig& config, const std::string& base_model, bool tied) {
  nlohmann::ordered_json json;
  json["alpha_pattern"] = pattern_json(config.alpha_pattern);
  json["auto_mapping"] = nullptr;
  json["base_model_name_or_path"] = base_model;
  json["bias"] = bias_name(config.bias);
  if (tied && !config.modules_to_save.empty()) json["ensure_weight_tying"] = true;
  json["fan_in_fan_out"] = false;
  json["inference_mode"] = true;
  json["init_lora_weights"] = true;
  json["layers_pattern"] = nullptr;
  json["layers_to_transform"] = config.layers_to_transform.empty() ? Json() : Json(config.layers_to_transform);
  json["lora_alpha"] = number(config.alpha);
  json["lora_bias"] = false;
  json["lora_dropout"] = config.dropout;
  json["modules_to_save"] = config.modules_to_save.empty() ? Json() : Json(config.modules_to_save);
  json["peft_type"] = "LORA";
  json["r"] = config.r;
  json["rank_pattern"] = pattern_json(config.rank_pattern);
  json["revision"] = nullptr;
  json["target_modules"] = sorted_modules(config);
  json["task_type"] = "CAUSAL_LM";
  json["use_dora"] = config.dora;
  json["use_rslora"] = config.rslora;
  return json;
}

/// Refuses what would change the result and is not applied here: a member other than absent, null, false, empty or `plain`.
void refuse_extras(const Json& json, const std::string& origin) {
  static constexpr std::array kKeys = {
      "lora_bias",       "fan_in_fan_out", "layer_replication", "trainable_token_indices", "target_parameters",
      "exclude_modules", "use_qalora",     "use_bdlora",        "alora_invocation_tokens"};
  for (const char* key : kKeys) {
    const Json* value = files::find_key(json, key);
    const bool unused =
        value == nullptr || *value == false || ((value->is_structured() || value->is_string()) && value->empty());
    if (!unused)
      throw Unsupported("{}: {} is {}; only plain LoRA on the projections is applied; merge the adapter with peft instead",
                        origin, key, files::describe(*value));
  }
}

LoraBias read_bias(const Json& json, const std::string& origin) {
  const std::string name = files::optional_string(json, "bias", origin).value_or("none");
  for (const LoraBias bias : {LoraBias::None, LoraBias::All, LoraBias::LoraOnly})
    if (bias_name(bias) == name) return bias;
  throw Unsupported("{}: bias \"{}\"; expected none, all or lora_only", origin, name);
}

/// embed_tokens and lm_head, as far as they are trained; where peft ties them, naming one names the `tied` table's other
/// use.
std::vector<std::string> read_modules_to_save(const Json& json, const std::string& origin, bool tied) {
  std::set<std::string> modules;
  const Json* list = files::find_key(json, "modules_to_save");
  if (list == nullptr || list->is_null()) return {};
  for (const Json& name : files::require_array(json, "modules_to_save", origin)) {
    if (!name.is_string()) throw BadFile("{}: modules_to_save: expected names, found {}", origin, files::describe(name));
    const std::string module = last_part(name.get<std::string>());
    if (module != "embed_tokens" && module != "lm_head")
      throw Unsupported("{}: modules_to_save has {}; only embed_tokens and lm_head are applied", origin, name.dump());
    modules.insert(module);
  }
  if (tied && !modules.empty() && files::optional_bool(json, "ensure_weight_tying", origin).value_or(false))
    modules = {"embed_tokens", "lm_head"};
  return {modules.begin(), modules.end()};
}

/// Members of an object, each by `value(object, key)`; none where there is no object.
template <typename Value, typename Read>
ModulePattern<Value> read_pattern(const Json& json, const char* key, const std::string& origin, Read&& value) {
  ModulePattern<Value> pattern;
  const Json* object = files::find_key(json, key);
  if (object == nullptr || object->is_null()) return pattern;
  if (!object->is_object()) throw BadFile("{}: {}: expected an object, found {}", origin, key, files::describe(*object));
  for (const auto& member : object->items())
    pattern.emplace_back(member.key(), value(*object, member.key(), fmt::format("{}: {}", origin, key)));
  return pattern;
}

/// A number or a list of numbers.
std::vector<std::int64_t> read_layers(const Json& json, const std::string& origin) {
  constexpr const char* kKey = "layers_to_transform";
  const Json* value = files::find_key(json, kKey);
  if (value == nullptr || value->is_null()) return {};
  std::vector<std::int64_t> layers;
  for (const Json& layer : value->is_array() ? *value : Json{*value}) {
    if (!layer.is_number_integer())
      throw BadFile("{}: {}: expected layers, found {}", origin, kKey, files::describe(*value));
    layers.push_back(layer.get<std::int64_t>());
  }
  return layers;
}

LoraConfig read_config(const std::filesystem::path& path, bool tied) {
  const std::string origin = path.string();
  const Json json = files::read_json(path);
  if (const std::string& type = files::require_string(json, "peft_type", origin); type != "LORA")
    throw Unsupported("{}: peft_type \"{}\"; only \"LORA\" is applied", origin, type);
  refuse_extras(json, origin);
  LoraConfig config;
  config.r = files::require_int(json, "r", origin, 1, 65536);
  config.alpha = files::require_number(json, "lora_alpha", origin);
  config.dora = files::optional_bool(json, "use_dora", origin).value_or(false);
  config.rslora = files::optional_bool(json, "use_rslora", origin).value_or(false);
  config.dropout = files::optional_number(json, "lora_dropout", origin, 0, 1).value_or(0);
  config.bias = read_bias(json, origin);
  config.rank_pattern = read_pattern<std::int64_t>(json, "rank_pattern", origin,
                                                   [](const Json& object, const std::string& key, const std::string& where) {
                                                     return files::require_int(object, key, where, 1, 65536);
                                                   });
  config.alpha_pattern = read_pattern<double>(json, "alpha_pattern", origin,
                                              [](const Json& object, const std::string& key, const std::string& where) {
                                                return files::require_number(object, key, where);
                                              });
  config.layers_to_transform = read_layers(json, origin);
  config.modules_to_save = read_modules_to_save(json, origin, tied);
  const Json* modules = files::find_key(json, "target_modules");
  if (modules == nullptr) throw BadFile("{}: target_modules: expected a list of names, found nothing", origin);
  if (modules->is_string()) {
    if (*modules != "all-linear")
      throw Unsupported("{}: target_modules is the pattern {}; only lists of names and \"all-linear\" are read", origin,
                        modules->dump());
  } else {
    for (const Json& name : files::require_array(json, "target_modules", origin)) {
      if (!name.is_string()) throw BadFile("{}: target_modules: expected names, found {}", origin, files::describe(name));
      config.target_modules.push_back(name.get<std::string>());
    }
  }
  return config;
}

/// Copies F32, BF16 or F16 elements, which may be unaligned, into f32.
template <typename T>
void copy_elements(std::span<const std::byte> data, std::span<float> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    T value;
    std::memcpy(&value, data.data() + i * sizeof(T), sizeof(T));
    out[i] = to_float(value);
  }
}

void read_master(const files::SafetensorsFile& file, const std::string& name, const TensorView& master) {
  const files::SafetensorsTensor& tensor = file.at(name);
  if (tensor.shape != master.shape)
    throw BadFile("{}: {}: expected shape {}, found {}; is this an adapter for another base model?", file.origin(), name,
                  master.shape.str(), tensor.shape.str());
  switch (tensor.dtype) {
    case DType::F32: return copy_elements<float>(tensor.data, master.span<float>());
    case DType::BF16: return copy_elements<bf16>(tensor.data, master.span<float>());
    case DType::F16: return copy_elements<f16>(tensor.data, master.span<float>());
    default: throw BadFile("{}: {}: expected F32, BF16 or F16, found {}", file.origin(), name, dtype_name(tensor.dtype));
  }
}

}  // namespace

void save_peft(const Adapters& adapters, const TensorTable& table, const PeftBase& base, const std::filesystem::path& folder,
               const std::vector<TensorView>& beside) {
  std::vector<files::SafetensorsEntry> entries;
  std::vector<TensorView> tensors;
  const auto add = [&](std::string name, const TensorView& tensor) {
    entries.push_back({std::move(name), DType::F32, tensor.shape});
    tensors.push_back(tensor);
  };
  std::vector<PeftTensors> joined;
  for (const PeftModule& module : peft_modules(table, adapters)) {
    if (module.rows > 0) joined.push_back(join_parts(module));
    for (auto& [name, tensor] :
         module.rows > 0 ? named(module, joined.back().a, joined.back().b, joined.back().magnitude) : named(module))
      add(name, tensor);
  }
  for (std::size_t i = 0; i < beside.size(); ++i)
    if (beside[i])
      for (std::string& name : names_beside(table, adapters, i)) add(std::move(name), beside[i]);
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw IoError("{}: cannot make the folder: {}", folder.string(), error.message());
  files::SafetensorsMetadata metadata = {{"format", "pt"}};
  if (!base.fingerprint.empty()) metadata.emplace(kFingerprintKey, base.fingerprint);
  if (std::string parts = adapted_parts(table, adapters.config()); !parts.empty())
    metadata.emplace(kPartsKey, std::move(parts));
  files::SafetensorsWriter writer(folder / kWeightsName, entries, metadata);
  for (const TensorView& tensor : tensors) writer.write(std::as_bytes(tensor.span<float>()));
  writer.commit();
  const bool tied = table.embedding() == table.head();
  write_file(folder / kConfigName, config_json(to_peft_config(table, adapters.config()), base.name, tied).dump(2) + "\n");
}

namespace {

/// Reads what was trained beside the adapters and adds its names to `known`.
std::vector<Tensor> read_beside(const files::SafetensorsFile& file, const TensorTable& table, const Adapters& adapters,
                                std::set<std::string>& known) {
  std::vector<Tensor> beside;
  for (const std::size_t index : tensors_beside(table, adapters)) {
    beside.resize(table.size());
    beside[index] = Tensor(DType::F32, table[index].shape);
    Tensor other;  // of a tied table
    for (const std::string& name : names_beside(table, adapters, index)) {
      Tensor& tensor = known.contains("base_model.model." + table[index].hf_name) ? other : beside[index];
      tensor = Tensor(DType::F32, table[index].shape);
      read_master(file, name, tensor);
      known.insert(name);
    }
    if (other && !std::ranges::equal(other.span<float>(), beside[index].span<float>()))
      throw Unsupported(
          "{}: embed_tokens and lm_head differ, but the model holds them as one table; train with peft's "
          "ensure_weight_tying, or untie the base",
          file.origin());
  }
  return beside;
}

/// What adapted_parts said when temper wrote the file; none of peft's own.
std::optional<std::string> written_parts(const files::SafetensorsFile& file) {
  const auto found = file.metadata().find(kPartsKey);
  return found == file.metadata().end() ? std::nullopt : std::optional(found->second);
}

}  // namespace

LoraConfig read_peft_config(const TensorTable& table, const std::filesystem::path& folder) {
  LoraConfig config = read_config(folder / kConfigName, table.embedding() == table.head());
  return from_peft_config(table, std::move(config), written_parts(files::SafetensorsFile(folder / kWeightsName)));
}

PeftBase read_peft_base(const std::filesystem::path& folder) {
  const std::filesystem::path config = folder / kConfigName;
  PeftBase base;
  base.name = files::optional_string(files::read_json(config), "base_model_name_or_path", config.string()).value_or("");
  const files::SafetensorsFile file(folder / kWeightsName);
  if (const auto found = file.metadata().find(kFingerprintKey); found != file.metadata().end())
    base.fingerprint = found->second;
  return base;
}

Adapters load_peft(const TensorTable& table, const std::filesystem::path& folder, std::vector<Tensor>* beside) {
  const LoraConfig config = read_peft_config(table, folder);
  const files::SafetensorsFile file(folder / kWeightsName);
  std::set<std::string> known;
  std::vector<Tensor> others;
  Adapters adapters = [&] {
    try {
      Adapters made(table, config, /*seed=*/0);
      others = read_beside(file, table, made, known);
      return made;
    } catch (const BadRecipe& error) {  // here the config is a file's, not the user's
      throw BadFile("{}: {}", (folder / kConfigName).string(), error.what());
    }
  }();
  if (!others.empty() && !beside)
    throw Unsupported("{}: holds more than adapters (bias or modules_to_save), which is not applied here", file.origin());
  if (beside) *beside = std::move(others);
  const auto read = [&](const std::vector<std::pair<std::string, TensorView>>& tensors) {
    for (const auto& [name, tensor] : tensors) {
      read_master(file, name, tensor);
      known.insert(name);
    }
  };
  const bool shared = !written_parts(file);
  for (const PeftModule& module : peft_modules(table, adapters)) {
    if (module.rows == 0) {
      read(named(module));
      continue;
    }
    const PeftTensors stored(module, shared);
    read(named(module, stored.a, stored.b, stored.magnitude));
    split_parts(module, stored, shared, file.origin());
  }
  for (const files::SafetensorsTensor& tensor : file.tensors())
    if (!known.contains(tensor.name))
      throw BadFile("{}: unknown tensor {}; is this an adapter for another base model?", file.origin(), tensor.name);
  return adapters;
}

}  // namespace temper::model
