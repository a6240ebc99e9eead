// torchao's integer classes: IntxUnpackedToInt8Tensor, Int4Tensor (packing "plain"), Int8Tensor.
#include <algorithm>

#include "base/error.h"
#include "files/json.h"
#include "wires/torchao_layouts.h"

namespace temper::wires::torchao {
namespace {

using quant::Element;
using quant::Mapping;
using quant::ScaledFormat;
using quant::ScaleType;
using Parts = quant::ScaledCodec::Parts;

bool all_zero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

DType dtype_of_scale(ScaleType type) {
  return type == ScaleType::BF16 ? DType::BF16 : type == ScaleType::F16 ? DType::F16 : DType::F32;
}

std::string_view scale_suffix(DType dtype) { return dtype == DType::BF16 ? "-bf16" : dtype == DType::F16 ? "-f16" : ""; }

bool in_groups(const Json& config) {
  const Json data = config.is_object() ? config.value("_data", Json::object()) : Json::object();
  for (const char* key : {"granularity", "weight_granularity"})
    if (const Json* value = files::find_key(data, key);
        value && value->is_object() && value->value("_type", Json()) == "PerGroup")
      return true;
  return false;
}

/// [groups, rows] of [rows, groups] elements of two bytes.
std::vector<std::byte> transposed(std::span<const std::byte> in, std::int64_t rows, std::int64_t cols) {
  std::vector<std::byte> out(in.size());
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < cols; ++c) std::copy_n(in.data() + 2 * (r * cols + c), 2, out.data() + 2 * (c * rows + r));
  return out;
}

// ---- IntxUnpackedToInt8Tensor: integers of 1 to 8 bits, a byte each ----

constexpr std::string_view kIntxInput = "int8-asym", kIntxActivations = "int8_asym_per_token";

class Intx final : public Layout {
 public:
  std::string_view type() const override { return "IntxUnpackedToInt8Tensor"; }
  bool takes(const ScaledFormat& f) const override {
    return f.integer() && f.mapping != Mapping::Tinygemm && f.mapping != Mapping::MslkSym && f.mapping != Mapping::SymEps;
  }
  std::string refusal(const Matrix& m) const override {
    return !m.input || has_input(m, kIntxInput)
               ? ""
               : fmt::format("activations in {} with {} weights: {} is multiplied with activations in {} or 16 bit",
                             m.input->name(), m.codec->name(), type(), kIntxInput);
  }
  std::vector<Field> fields(const Matrix& m) const override {
    const Shape groups{m.rows, groups_of(m)};
    return {{"qdata", DType::I8, {m.rows, m.cols}},
            {"scale", dtype_of_scale(format_of(m).scale), groups},
            {"zero_point", DType::I8, groups}};
  }
  Json attributes(const Matrix& m) const override {
    return {{"target_dtype", torch_dtype(bits_name(m))},
            {"block_size", {1, group_of(m)}},
            {"dtype", torch_dtype(torch_name(m.dtype))},
            {"activation_quantization", m.input ? Json(kIntxActivations) : Json()}};
  }
  Json config(const Matrix& m) const override {
    const ScaledFormat& f = format_of(m);
    const Json granularity =
        f.group == 0 ? versioned("PerAxis", {{"axis", 0}}) : versioned("PerGroup", {{"group_size", f.group}});
    const Json mapping = tagged("MappingType", f.asymmetric() ? "ASYMMETRIC" : "SYMMETRIC");
    Json data = {{"intx_choose_qparams_algorithm", tagged("IntxChooseQParamsAlgorithm", "AFFINE")},
                 {"intx_packing_format", tagged("IntxPackingFormat", "UNPACKED_TO_INT8")},
                 {"weight_dtype", torch_dtype(bits_name(m))}};
    const std::string_view prefix = m.input ? "weight_" : "";
    data[fmt::format("{}granularity", prefix)] = granularity;
    data[fmt::format("{}mapping_type", prefix)] = mapping;
    data[fmt::format("{}scale_dtype", prefix)] = nullptr;
    if (m.input) data["act_mapping_type"] = tagged("MappingType", "ASYMMETRIC");
    return versioned(m.input ? "Int8DynamicActivationIntxWeightConfig" : "IntxWeightOnlyConfig", data, 2);
  }
  FieldBytes pack(const Matrix& m, const Parts& parts) const override {
    const auto groups = static_cast<std::size_t>(m.rows * groups_of(m));
    return {as_bytes(parts.codes), parts.scales, parts.zeros.empty() ? std::vector<std::byte>(groups) : parts.zeros};
  }
  void describe(Matrix& m, const Json& attributes, const Json& config, const FieldReader& read) const override {
    const std::string target = dtype_of(attributes, "target_dtype", m.name);
    const std::int64_t block = block_of(attributes, m);
    const Json* activations = files::find_key(attributes, "activation_quantization");
    if (activations && *activations != kIntxActivations)
      throw Unsupported("{}: activation_quantization {}: expected null or \"{}\"", m.name, files::describe(*activations),
                        kIntxActivations);
    const auto zeros = read("zero_point", DType::I8, {m.rows, m.cols / block});
    // torchao's own scales have the model's dtype; those of a 32-bit model may be 16-bit all the same.
    const files::SafetensorsTensor* scales = read.find("scale");
    const DType scale = scales ? scales->dtype : DType::F32;
    const std::string suffix = block < m.cols || in_groups(config) ? fmt::format("-g{}", block) : "";
    m.codec =
        &codec_named(fmt::format("{}-{}{}{}", target, all_zero(zeros) ? "sym" : "asym", suffix, scale_suffix(scale)), m);
    m.input = activations ? &codec_named(std::string(kIntxInput), m) : nullptr;
  }
  Parts unpack(const Matrix& m, const FieldReader& read) const override {
    const std::vector<Field> all = fields(m);
    Parts parts;
    parts.codes = as_codes(read(all[0].name, all[0].dtype, all[0].shape));
    const int low = -(1 << (format_of(m).bits() - 1));
    for (const std::uint8_t code : parts.codes)
      if (const int q = static_cast<std::int8_t>(code); q < low || q >= -low)
        throw BadFile("{}: qdata: {} is no {}", m.name, q, bits_name(m));
    parts.scales = read(all[1].name, all[1].dtype, all[1].shape);
    if (format_of(m).asymmetric()) parts.zeros = read(all[2].name, all[2].dtype, all[2].shape);
    return parts;
  }

 private:
  static std::string bits_name(const Matrix& m) { return fmt::format("int{}", format_of(m).bits()); }
};

// ---- Int4Tensor: two integers a byte, parameters [groups, rows] ----

constexpr std::string_view kFp8Input = "fp8-e4m3";

class Int4 final : public Layout {
 public:
  std::string_view type() const override { return "Int4Tensor"; }
  bool takes(const ScaledFormat& f) const override {
    return f.element == Element::Int4 && (f.mapping == Mapping::Tinygemm || f.mapping == Mapping::MslkSym);
  }
  std::string refusal(const Matrix& m) const override {
    const ScaledFormat& f = format_of(m);
    if (f.scale != ScaleType::BF16)
      return fmt::format("{}: Int4Tensor's scales are bf16 (take {}-bf16)", m.codec->name(), without_type(f.name));
    if (f.group == 0) return fmt::format("{}: Int4Tensor has groups", m.codec->name());
    if (f.mapping == Mapping::Tinygemm && m.input)
      return fmt::format("activations in {} with {} weights: Int4Tensor multiplies those with 16-bit activations",
                         m.input->name(), m.codec->name());
    if (f.mapping == Mapping::MslkSym && !has_input(m, kFp8Input))
      return fmt::format("{} weights without activations in {}", m.codec->name(), kFp8Input);
    return "";
  }
  std::vector<Field> fields(const Matrix& m) const override {
    const Shape groups{groups_of(m), m.rows};
    return {{"qdata", DType::I8, {m.rows, m.cols / 2}}, {"scale", DType::BF16, groups}, {"zero_point", DType::BF16, groups}};
  }
  Json attributes(const Matrix& m) const override {
    return {{"activation_dtype", torch_dtype(m.input ? "float8_e4m3fn" : "bfloat16")},
            {"block_size", {1, group_of(m)}},
            {"shape", {m.rows, m.cols}}};
  }
  Json config(const Matrix& m) const override {
    if (m.input) return versioned("Float8DynamicActivationInt4WeightConfig", {{"int4_packing_format", "plain"}});
    return versioned("Int4WeightOnlyConfig",
                     {{"group_size", group_of(m)},
                      {"int4_choose_qparams_algorithm", tagged("Int4ChooseQParamsAlgorithm", "TINYGEMM")},
                      {"int4_packing_format", tagged("Int4PackingFormat", "PLAIN")},
                      {"int4_tile_packed_ntile", 8},
                      {"set_inductor_config", true}},
                     2);
  }
  FieldBytes pack(const Matrix& m, const Parts& parts) const override {
    const std::int64_t groups = groups_of(m);
    return {pack_nibbles(parts.codes), transposed(parts.scales, m.rows, groups),
            parts.zeros.empty() ? std::vector<std::byte>(parts.scales.size()) : transposed(parts.zeros, m.rows, groups)};
  }
  void describe(Matrix& m, const Json& attributes, const Json&, const FieldReader& read) const override {
    const std::int64_t block = block_of(attributes, m);
    const std::string activations = dtype_of(attributes, "activation_dtype", m.name);
    if (const Json* shape = files::find_key(attributes, "shape"); !shape || *shape != Json({m.rows, m.cols}))
      throw BadFile("{}: attribute \"shape\": expected [{}, {}]", m.name, m.rows, m.cols);
    if (const Json* scale = files::find_key(attributes, "act_pre_scale"))
      throw Unsupported("{}: act_pre_scale {}: inputs that are scaled first are not read", m.name, files::describe(*scale));
    if (activations != "bfloat16" && activations != "float8_e4m3fn")
      throw Unsupported("{}: activation_dtype {}: expected bfloat16 or float8_e4m3fn", m.name, activations);
    const bool fp8 = activations != "bfloat16";
    if (fp8 && !all_zero(read("zero_point", DType::BF16, {m.cols / block, m.rows})))
      throw Unsupported("{}: zero points with float8 activations", m.name);
    // Groups as long as a row have a name only among the sizes that there are.
    m.codec = &codec_named(fmt::format("int4-{}-g{}-bf16", fp8 ? "mslk" : "tinygemm", block), m);
    m.input = fp8 ? &codec_named(std::string(kFp8Input), m) : nullptr;
  }
  Parts unpack(const Matrix& m, const FieldReader& read) const override {
    const std::vector<Field> all = fields(m);
    Parts parts;
    parts.codes = unpack_nibbles(read(all[0].name, all[0].dtype, all[0].shape), true);
    parts.scales = transposed(read(all[1].name, all[1].dtype, all[1].shape), groups_of(m), m.rows);
    if (format_of(m).asymmetric())
      parts.zeros = transposed(read(all[2].name, all[2].dtype, all[2].shape), groups_of(m), m.rows);
    return parts;
  }

 private:
  static std::string_view without_type(std::string_view name) {
    return name.ends_with("-f16") ? name.substr(0, name.size() - 4) : name;
  }
};

// ---- Int8Tensor: a byte each, a scale in f32 for each row ----

constexpr std::string_view kInt8Input = "int8-symeps";

class Int8 final : public Layout {
 public:
  std::string_view type() const override { return "Int8Tensor"; }
  bool takes(const ScaledFormat& f) const override { return f.element == Element::Int8 && f.mapping == Mapping::SymEps; }
  std::string refusal(const Matrix& m) const override {
    const ScaledFormat& f = format_of(m);
    if (f.group != 0 || f.scale == ScaleType::F16)
      return fmt::format("{}: Int8Tensor has one scale for each row, in f32 (int8-symeps-bf16)", m.codec->name());
    if (m.input && !has_input(m, kInt8Input))
      return fmt::format("activations in {} with {} weights: Int8Tensor is multiplied with activations in {} or 16 bit",
                         m.input->name(), m.codec->name(), kInt8Input);
    return "";
  }
  std::vector<Field> fields(const Matrix& m) const override {
    return {
        {"zero_point", DType::I8, {m.rows, 1}}, {"qdata", DType::I8, {m.rows, m.cols}}, {"scale", DType::F32, {m.rows, 1}}};
  }
  Json attributes(const Matrix& m) const override {
    return {{"act_quant_kwargs", m.input ? tagged("QuantizeTensorToInt8Kwargs", kwargs()) : Json()},
            {"reduce_range", false},
            {"block_size", {1, m.cols}},
            {"dtype", torch_dtype(torch_name(m.dtype))}};
  }
  Json config(const Matrix& m) const override {
    Json data = {{"granularity", versioned("PerRow", {{"dim", -1}})}, {"set_inductor_config", true}};
    if (!m.input) {
      data["group_size"] = nullptr;
      return versioned("Int8WeightOnlyConfig", data, 2);
    }
    data["act_mapping_type"] = tagged("MappingType", "SYMMETRIC");
    data["reduce_range"] = data["weight_only_decode"] = false;
    return versioned("Int8DynamicActivationInt8WeightConfig", data, 2);
  }
  FieldBytes pack(const Matrix& m, const Parts& parts) const override {
    return {std::vector<std::byte>(static_cast<std::size_t>(m.rows)), as_bytes(parts.codes),
            as_f32(parts.scales, format_of(m).scale)};
  }
  void describe(Matrix& m, const Json& attributes, const Json&, const FieldReader& read) const override {
    if (block_of(attributes, m) != m.cols) throw Unsupported("{}: Int8Tensor with groups of a row", m.name);
    if (!all_zero(read("zero_point", DType::I8, {m.rows, 1}))) throw Unsupported("{}: Int8Tensor with zero points", m.name);
    const Json* activations = files::find_key(attributes, "act_quant_kwargs");
    if (activations && data_of(*activations, "QuantizeTensorToInt8Kwargs", m.name) != kwargs())
      throw Unsupported("{}: act_quant_kwargs {}: expected symmetric per row", m.name, activations->dump());
    const bool narrow = fits_bf16(read("scale", DType::F32, {m.rows, 1}));
    m.codec = &codec_named(narrow ? "int8-symeps-bf16" : "int8-symeps", m);
    m.input = activations ? &codec_named(std::string(kInt8Input), m) : nullptr;
  }
  Parts unpack(const Matrix& m, const FieldReader& read) const override {
    Parts parts;
    parts.codes = as_codes(read("qdata", DType::I8, {m.rows, m.cols}));
    parts.scales = from_f32(read("scale", DType::F32, {m.rows, 1}), format_of(m).scale);
    return parts;
  }

 private:
  static Json kwargs() {
    return {{"granularity", tagged("PerRow", {{"dim", -1}})},
            {"mapping_type", tagged("MappingType", "SYMMETRIC")},
            {"reduce_range", false}};
  }
};

}  // namespace

const Layout& intx_layout() {
  static const Intx layout;
  return layout;
}
const Layout& int4_layout() {
  static const Int4 layout;
  return layout;
}
const Layout& int8_layout() {
  static const Int8 layout;
  return layout;
}

}  // namespace temper::wires::torchao
