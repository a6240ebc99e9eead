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

namespace temper::model {
namespace {

using files::Json;

constexpr const char* kConfigName = "adapter_config.json";
constexpr const char* kWeightsName = "adapter_model.safetensors";

/// "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
std::string tensor_name(const TensorTable& table, const Adapters::Entry& entry, const char* which) {
  if (const auto& fused = table[entry.tensor].fused)
    throw Unsupported("{}: adapters of matrices that are stored together have no names in peft's layout", fused->hf_name);
  std::string_view module = table[entry.tensor].hf_name;
  module.remove_suffix(std::string_view(".weight").size());
  return fmt::format("base_model.model.{}.{}.weight", module, which);
}

std::vector<std::string> sorted_modules(const LoraConfig& config) {
  std::set<std::string> modules(config.target_modules.begin(), config.target_modules.end());
  if (modules.empty())
    for (const Linear linear : kLinears) modules.emplace(module_name(linear));
  return {modules.begin(), modules.end()};
}

nlohmann::ordered_json config_json(const LoraConfig& config, const std::string& base_model) {
  nlohmann::ordered_json json;
  json["alpha_pattern"] = Json::object();
  json["auto_mapping"] = nullptr;
  json["base_model_name_or_path"] = base_model;
  json["bias"] = "none";
  json["fan_in_fan_out"] = false;
  json["inference_mode"] = true;
  json["init_lora_weights"] = true;
  json["layers_pattern"] = nullptr;
  json["layers_to_transform"] = nullptr;
  if (std::nearbyint(config.alpha) == config.alpha && std::abs(config.alpha) < 1e15) {
    json["lora_alpha"] = static_cast<std::int64_t>(config.alpha);
  } else {
    json["lora_alpha"] = config.alpha;
  }
  json["lora_bias"] = false;
  json["lora_dropout"] = 0.0;
  json["modules_to_save"] = nullptr;
  json["peft_type"] = "LORA";
  json["r"] = config.r;
  json["rank_pattern"] = Json::object();
  json["revision"] = nullptr;
  json["target_modules"] = sorted_modules(config);
  json["task_type"] = "CAUSAL_LM";
  json["use_dora"] = false;
  json["use_rslora"] = config.rslora;
  return json;
}

/// Refuses what would change the result and is not applied here: a member other than absent, null, false, empty or `plain`.
void refuse_extras(const Json& json, const std::string& origin) {
  static constexpr std::array kKeys = {
      "use_dora",        "lora_bias",           "fan_in_fan_out",    "modules_to_save",         "rank_pattern",
      "alpha_pattern",   "layers_to_transform", "layer_replication", "trainable_token_indices", "target_parameters",
      "exclude_modules", "use_qalora",          "use_bdlora",        "alora_invocation_tokens"};
  for (const char* key : kKeys) {
    const Json* value = files::find_key(json, key);
    const bool unused =
        value == nullptr || *value == false || ((value->is_structured() || value->is_string()) && value->empty());
    if (!unused)
      throw Unsupported("{}: {} is {}; only plain LoRA on the projections is applied; merge the adapter with peft instead",
                        origin, key, files::describe(*value));
  }
  if (const std::string bias = files::optional_string(json, "bias", origin).value_or("none"); bias != "none")
    throw Unsupported("{}: bias \"{}\"; only \"none\" is applied; merge the adapter with peft instead", origin, bias);
}

LoraConfig read_config(const std::filesystem::path& path) {
  const std::string origin = path.string();
  const Json json = files::read_json(path);
  if (const std::string& type = files::require_string(json, "peft_type", origin); type != "LORA")
    throw Unsupported("{}: peft_type \"{}\"; only \"LORA\" is applied", origin, type);
  refuse_extras(json, origin);
  LoraConfig config;
  config.r = files::require_int(json, "r", origin, 1, 65536);
  config.alpha = files::require_number(json, "lora_alpha", origin);
  config.rslora = files::optional_bool(json, "use_rslora", origin).value_or(false);
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

void save_peft(const Adapters& adapters, const TensorTable& table, const std::string& base_model,
               const std::filesystem::path& folder) {
  std::vector<files::SafetensorsEntry> entries;
  for (const Adapters::Entry& entry : adapters.entries()) {
    entries.push_back({tensor_name(table, entry, "lora_A"), DType::F32, entry.a.shape});
    entries.push_back({tensor_name(table, entry, "lora_B"), DType::F32, entry.b.shape});
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw IoError("{}: cannot make the folder: {}", folder.string(), error.message());
  files::SafetensorsWriter writer(folder / kWeightsName, entries);
  for (const Adapters::Entry& entry : adapters.entries()) {
    writer.write(std::as_bytes(entry.a.span<float>()));
    writer.write(std::as_bytes(entry.b.span<float>()));
  }
  writer.commit();
  write_file(folder / kConfigName, config_json(adapters.config(), base_model).dump(2) + "\n");
}

Adapters load_peft(const TensorTable& table, const std::filesystem::path& folder) {
  const LoraConfig config = read_config(folder / kConfigName);
  const files::SafetensorsFile file(folder / kWeightsName);
  Adapters adapters = [&] {
    try {
      return Adapters(table, config, /*seed=*/0);
    } catch (const BadRecipe& error) {  // here the config is a file's, not the user's
      throw BadFile("{}: {}", (folder / kConfigName).string(), error.what());
    }
  }();
  std::set<std::string> known;
  for (const Adapters::Entry& entry : adapters.entries()) {
    for (const bool is_a : {true, false}) {
      const std::string name = tensor_name(table, entry, is_a ? "lora_A" : "lora_B");
      read_master(file, name, is_a ? entry.a : entry.b);
      known.insert(name);
    }
  }
  for (const files::SafetensorsTensor& tensor : file.tensors())
    if (!known.contains(tensor.name))
      throw BadFile("{}: unknown tensor {}; is this an adapter for another base model?", file.origin(), tensor.name);
  return adapters;
}

}  // namespace temper::model
