#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "files/json.h"
#include "quant/activations.h"
#include "wires/compressed_tensors.h"
#include "wires/layout.h"

namespace temper::wires {
namespace {

using files::Json;
using quant::Element;
using quant::Mapping;
using quant::ScaledFormat;
using quant::ScaleType;
using quant::Sharing;

constexpr const char* kMethod = "compressed-tensors";
constexpr const char* kOrigin = "quantization_config";

/// What the package calls an arrangement of weights or activations: the members of its QuantizationArgs that differ.
struct Args {
  std::int64_t bits = 0;
  bool integer = true, symmetric = true;
  std::string strategy;
  std::int64_t group = 0;
  std::string_view scale_dtype = {};   ///< Empty: that of the model.
  std::string_view dynamic = "false";  ///< "true", "false", or "local": scales of groups, below a given one.

  bool is_mx() const { return scale_dtype == "torch.uint8"; }
  bool operator==(const Args& other) const = default;
};

bool is_float(const ScaledFormat& format, Element element, Mapping mapping) {
  return format.element == element && format.mapping == mapping;
}

bool is_mx(const ScaledFormat& format) { return format.scale == ScaleType::E8M0 && format.group == 32; }

std::optional<Args> weight_args(const ScaledFormat& format) {
  if (format.integer()) {
    if (!is_affine(format)) return std::nullopt;
    return Args{format.bits(), true, !format.asymmetric(), format.group ? "group" : "channel", format.group};
  }
  if (is_mx(format) &&
      (format.element == Element::E2M1 || format.element == Element::E2M3 || format.element == Element::E4M3))
    return Args{format.bits(), false, true, "group", 32, "torch.uint8"};
  if (is_float(format, Element::E2M1, Mapping::NvCt)) return Args{4, false, true, "tensor_group", 16, "torch.float8_e4m3fn"};
  if (format.element != Element::E4M3 || (format.mapping != Mapping::Fp8 && format.mapping != Mapping::CtFp8))
    return std::nullopt;
  switch (format.sharing) {
    case Sharing::Tensor: return Args{8, false, true, "tensor", 0};
    case Sharing::Band: return Args{8, false, true, "block", 0};
    default: break;
  }
  if (format.group != 0) return std::nullopt;
  return Args{8, false, true, "channel", 0};
}

/// Activations, whose scales are found for each token as it comes, or given.
std::optional<Args> input_args(const ScaledFormat& format) {
  if (format.sharing != Sharing::None) return std::nullopt;
  if (format.fixed && format.group != 0) return Args{4, false, true, "tensor_group", 16, "torch.float8_e4m3fn", "local"};
  if (format.fixed) return Args{8, format.integer(), !format.asymmetric(), "tensor", 0};
  if (format.element == Element::Int8 && is_affine(format) && format.group == 0)
    return Args{8, true, !format.asymmetric(), "token", 0, {}, "true"};
  if (is_mx(format) && (format.element == Element::E2M1 || format.element == Element::E4M3))
    return Args{format.bits(), false, true, "group", 32, "torch.uint8", "true"};
  if (format.element != Element::E4M3 || (format.mapping != Mapping::Fp8 && format.mapping != Mapping::CtFp8))
    return std::nullopt;
  if (format.group != 0 && format.group != 128) return std::nullopt;
  return Args{8, false, true, format.group ? "group" : "token", format.group, {}, "true"};
}

bool go_together(const Args& weight, const Args& input) {
  const auto nvfp4 = [](const Args& args) { return args.strategy == "tensor_group"; };
  if (nvfp4(weight) || nvfp4(input)) return nvfp4(weight) && nvfp4(input);
  if (weight.is_mx()) return !input.integer;
  return weight.scale_dtype.empty() && !input.is_mx() && (weight.integer || !input.integer);
}

Json to_json(const Args& args) {
  const Json dynamic = args.dynamic == "local" ? Json("local") : Json(args.dynamic == "true");
  Json json = {{"num_bits", args.bits},       {"type", args.integer ? "int" : "float"},
               {"symmetric", args.symmetric}, {"strategy", args.strategy},
               {"dynamic", dynamic},          {"group_size", args.group ? Json(args.group) : Json()}};
  if (!args.scale_dtype.empty()) json["scale_dtype"] = args.scale_dtype;
  if (args.strategy == "block") json["block_structure"] = Json::array({128, 128});
  return json;
}

const char* format_name(const Args& weight, bool has_input) {
  if (weight.integer) return has_input ? "int-quantized" : "pack-quantized";
  if (weight.strategy == "tensor_group") return "nvfp4-pack-quantized";
  if (weight.scale_dtype.empty()) return has_input ? "float-quantized" : "naive-quantized";
  return weight.bits == 4 ? "mxfp4-pack-quantized" : weight.bits == 6 ? "mxfp6-pack-quantized" : "mxfp8-quantized";
}

Json group_of(const Matrix& matrix) {
  const auto* codec = quant::as_scaled(matrix.codec);
  const auto* input = quant::as_scaled(matrix.input);
  const std::optional<Args> weights = codec ? weight_args(codec->format()) : std::nullopt;
  const std::optional<Args> inputs = input ? input_args(input->format()) : std::nullopt;
  const auto* output = quant::as_scaled(matrix.output);
  const std::optional<Args> outputs = output ? input_args(output->format()) : std::nullopt;
  if (!weights || (matrix.input && !inputs) || (matrix.output && !outputs))
    throw LogicError("{}: {}", matrix.name, ct_refusal(matrix));
  return {{"format", format_name(*weights, inputs.has_value())},
          {"weights", to_json(*weights)},
          {"input_activations", inputs ? to_json(*inputs) : Json()},
          {"output_activations", outputs ? to_json(*outputs) : Json()}};
}

// ---- Reading ----

Args read_args(const Json& json, const std::string& where) {
  Args args;
  args.bits = files::require_int(json, "num_bits", where, 1, 16);
  args.integer = files::optional_string(json, "type", where).value_or("int") == "int";
  args.symmetric = files::optional_bool(json, "symmetric", where).value_or(true);
  args.group = std::max<std::int64_t>(0, files::optional_int(json, "group_size", where).value_or(0));
  args.strategy = files::optional_string(json, "strategy", where).value_or(args.group > 0 ? "group" : "tensor");
  const std::string scale = files::optional_string(json, "scale_dtype", where).value_or("");
  for (const std::string_view known : {"torch.uint8", "torch.float8_e4m3fn"})
    if (scale == known) args.scale_dtype = known;
  if (const Json* dynamic = files::find_key(json, "dynamic"))
    args.dynamic = *dynamic == "local" ? "local" : *dynamic == true ? "true" : "false";
  const std::string order = files::optional_string(json, "actorder", where).value_or("static");
  if (order != "static" && order != "weight")
    throw Unsupported("{}: actorder \"{}\": columns that are quantized in an order of their own are not read", where, order);
  if (const Json* block = files::optional_array(json, "block_structure", where); block && *block != Json::array({128, 128}))
    throw Unsupported("{}: block_structure: blocks of 128 x 128 are read, found {}", where, block->dump());
  return args;
}

std::string text_of(const Args& args) {
  return fmt::format("{} {} bits, {}, strategy {}, group_size {}, dynamic {}, scales {}",
                     args.integer ? "integers of" : "floats of", args.bits, args.symmetric ? "symmetric" : "asymmetric",
                     args.strategy, args.group, args.dynamic, args.scale_dtype.empty() ? "as the model" : args.scale_dtype);
}

std::string_view bf16_or_f32(DType scale) { return scale == DType::BF16 ? "-bf16" : ""; }

const quant::Codec* weight_codec(const Args& args, DType scale) {
  const std::optional<ScaleType> type = scale_type(scale);
  if (args.integer) {
    if (!type || (args.strategy != "group" && args.strategy != "channel") || (args.strategy == "group") != (args.group > 0))
      return nullptr;
    return integer_codec(args.bits, args.symmetric, args.group, *type);
  }
  if (args.group == 16 && args.bits == 4 && scale == DType::F8E4M3) return quant::find_codec("nvfp4-ct");
  if (args.group == 32 && scale == DType::U8)
    return quant::find_codec(args.bits == 4   ? "mxfp4-even"
                             : args.bits == 6 ? "mxfp6-e2m3-even"
                             : args.bits == 8 ? "mxfp8-e4m3-ct"
                                              : "");
  if (args.bits != 8 || !args.scale_dtype.empty() || (scale != DType::BF16 && scale != DType::F32)) return nullptr;
  const std::string_view suffix = bf16_or_f32(scale);
  if (args.strategy == "channel") return quant::find_codec(fmt::format("fp8-e4m3-ct{}", suffix));
  if (args.strategy == "block") return quant::find_codec(fmt::format("fp8-e4m3-ct-b128{}", suffix));
  return args.strategy == "tensor" ? quant::find_codec(fmt::format("fp8-e4m3-ct-tensor{}", suffix)) : nullptr;
}

/// In the arithmetic of f32, as schemes name them.
const quant::Codec* input_codec(const Args& args) {
  for (const char* name : {"int8-ctsym", "int8-ctasym", "fp8-e4m3-ct", "fp8-e4m3-ct-g128", "mxfp4-even", "mxfp8-e4m3-ct",
                           "int8-static-sym", "int8-static-asym", "fp8-static", "nvfp4-static"}) {
    const quant::Codec* codec = quant::find_codec(name);
    if (input_args(quant::as_scaled(codec)->format()) == args) return codec;
  }
  return nullptr;
}

/// The group that a module belongs to. Targets are names of modules or of classes; patterns are believed only where there is
/// nothing to choose.
const Json& group_for(const std::string& module, const Json& config) {
  const Json& groups = files::require_object(config, "config_groups", kOrigin);
  if (groups.size() == 1) return *groups.begin();
  const Json* by_class = nullptr;
  for (const Json& group : groups)
    for (const Json& target : files::require_array(group, "targets", kOrigin)) {
      if (!target.is_string()) throw BadFile("{}: targets: expected strings, found {}", kOrigin, files::describe(target));
      const std::string& text = target.get_ref<const std::string&>();
      if (text == module) return group;
      if (text == "Linear") by_class = &group;
      if (text.starts_with("re:"))
        throw Unsupported("{}: several config_groups with patterns (\"{}\") as targets are not read", kOrigin, text);
    }
  if (!by_class) throw BadFile("{}: no config group has {} among its targets", kOrigin, module);
  return *by_class;
}

/// What changes weights or activations beside the groups.
void refuse_the_rest(const Json& config) {
  const Json* transform = files::find_key(config, "transform_config");
  if (transform && !transform->empty()) throw Unsupported("{}: transform_config: rotated weights are not read", kOrigin);
  const Json* sparsity = files::find_key(config, "sparsity_config");
  if (sparsity && !sparsity->empty() && files::optional_string(*sparsity, "format", kOrigin).value_or("dense") != "dense")
    throw Unsupported("{}: sparsity_config: sparse weights are not read", kOrigin);
}

}  // namespace

std::string ct_refusal(const Matrix& matrix) {
  if (!matrix.codec) return "";
  if (matrix.role == quant::Role::Embedding)
    return "compressed-tensors holds linears; an embedding (or a head tied to it) stays in 16 bits";
  const auto* codec = quant::as_scaled(matrix.codec);
  const std::optional<Args> weights = codec ? weight_args(codec->format()) : std::nullopt;
  if (!weights)
    return fmt::format(
        "{} is no format of compressed-tensors; those are int2 … int8 with integer zero points or none, "
        "fp8-e4m3 by rows, tensors or blocks, mxfp4, mxfp6-e2m3, mxfp8-e4m3 and nvfp4-ct",
        matrix.codec->name());
  const std::optional<ScaleType> model = scale_type(matrix.dtype);
  if (codec->format().scale <= ScaleType::F16 && codec->format().scale != model)
    return fmt::format("scales have the dtype of the model's other tensors, {}; {} has {}", dtype_name(matrix.dtype),
                       codec->name(), dtype_name(scale_dtype(codec->format().scale)));
  if (!matrix.input) return "";
  const auto* input = quant::as_scaled(matrix.input);
  const std::optional<Args> inputs = input ? input_args(input->format()) : std::nullopt;
  if (input && input->format().element == Element::E2M1 && !inputs)
    return "activations in NVFP4 go by a calibrated input_global_scale: take nvfp4-static (scheme nvfp4-w4a4), or weights "
           "alone (nvfp4a16)";
  if (!inputs || !go_together(*weights, *inputs))
    return fmt::format("compressed-tensors has no weights in {} with activations in {}", codec->name(),
                       matrix.input->name());
  return "";
}

Json ct_config(std::span<const Matrix> matrices) {
  std::vector<std::pair<Json, Json>> groups;  // a group, and the modules in it
  Json ignore = Json::array();
  bool head = false;
  for (const Matrix& matrix : matrices) {
    head = head || matrix.role == quant::Role::Head;
    if (!matrix.codec) {
      if (matrix.role == quant::Role::Linear || matrix.role == quant::Role::Head) ignore.push_back(module_of(matrix));
      continue;
    }
    const Json group = group_of(matrix);
    const auto found = std::ranges::find(groups, group, &std::pair<Json, Json>::first);
    auto& [kept, modules] = found == groups.end() ? groups.emplace_back(group, Json::array()) : *found;
    modules.push_back(module_of(matrix));
  }
  if (!head) ignore.push_back("lm_head");  // tied: a linear of that name is made by readers
  Json config_groups = Json::object();
  std::string format = groups.empty() ? "dense" : groups.front().first["format"].get<std::string>();
  for (auto& [group, modules] : groups) {
    if (group["format"] != format) format = "mixed-precision";
    group["targets"] = groups.size() == 1 ? Json::array({"Linear"}) : modules;
    config_groups[fmt::format("group_{}", config_groups.size())] = group;
  }
  return {{"quant_method", kMethod},
          {"format", format},
          {"quantization_status", "compressed"},
          {"config_groups", config_groups},
          {"ignore", ignore},
          {"moe_sparsity_config", nullptr},
          {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr},
          {"sparsity_config", Json::object()},
          {"transform_config", Json::object()},
          {"version", "0.20.0"}};
}

bool ct_matches(const Json& config) {
  const Json* method = files::find_key(config, "quant_method");
  return method && *method == kMethod;
}

void ct_describe(Matrix& matrix, const Json& config, DType scale) {
  refuse_the_rest(config);
  const std::string module = module_of(matrix), where = fmt::format("{}: {}", kOrigin, module);
  const Json& group = group_for(module, config);
  const Args weights = read_args(files::require_object(group, "weights", where), where);
  matrix.codec = weight_codec(weights, scale);
  if (!matrix.codec)
    throw Unsupported("{}: weights: no format of temper's has {} with weight_scale in {}", where, text_of(weights),
                      dtype_name(scale));
  matrix.input = matrix.output = nullptr;
  if (const Json* output = files::optional_object(group, "output_activations", where)) {
    const Args outputs = read_args(*output, where);
    matrix.output = input_codec(outputs);
    if (!matrix.output || !quant::has_static_range(*matrix.output) || matrix.output->group() != 0)
      throw Unsupported("{}: output_activations: only static scales of tensors are read, found {}", where, text_of(outputs));
  }
  const Json* input = files::optional_object(group, "input_activations", where);
  if (!input) return;
  const Args inputs = read_args(*input, where);
  matrix.input = input_codec(inputs);
  if (!matrix.input) throw Unsupported("{}: input_activations: no format of temper's has {}", where, text_of(inputs));
}

}  // namespace temper::wires
