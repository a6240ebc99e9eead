// torchao's floating classes: Float8Tensor, NVFP4Tensor, MXTensor.
#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "files/json.h"
#include "wires/torchao_layouts.h"

namespace temper::wires::torchao {
namespace {

using quant::Element;
using quant::Mapping;
using quant::ScaledFormat;
using quant::ScaleType;
using quant::Sharing;
using Parts = quant::ScaledCodec::Parts;

/// A value for each of `count` rows.
std::vector<std::byte> repeated(std::span<const std::byte> value, std::int64_t count) {
  std::vector<std::byte> out;
  for (std::int64_t i = 0; i < count; ++i) out.insert(out.end(), value.begin(), value.end());
  return out;
}

Json kernel_preference() { return tagged("KernelPreference", "AUTO"); }

std::string wrong_input(const Matrix& m, std::string_view type, std::string_view expected) {
  return fmt::format("activations in {} with {} weights: {} is multiplied with activations in {} or 16 bit", m.input->name(),
                     m.codec->name(), type, expected);
}

// ---- Float8Tensor: e4m3, a scale in f32 for each row, or one ----

constexpr std::string_view kFp8 = "fp8-e4m3";

class Float8 final : public Layout {
 public:
  std::string_view type() const override { return "Float8Tensor"; }
  bool takes(const ScaledFormat& f) const override {
    return f.element == Element::E4M3 && (f.mapping == Mapping::Fp8 || f.mapping == Mapping::CtFp8);
  }
  std::string refusal(const Matrix& m) const override {
    const ScaledFormat& f = format_of(m);
    if (f.sharing == Sharing::Band)
      return fmt::format("{}: torchao's files know fp8 scales of rows and of tensors, not of blocks", m.codec->name());
    if (f.sharing == Sharing::Tensor && m.input)
      return fmt::format("activations in {} with {} weights: activations are rounded by rows only with weights by rows",
                         m.input->name(), m.codec->name());
    return m.input && !has_input(m, kFp8) ? wrong_input(m, type(), kFp8) : "";
  }
  std::vector<Field> fields(const Matrix& m) const override {
    return {{"qdata", DType::F8E4M3, {m.rows, m.cols}}, {"scale", DType::F32, {by_tensor(m) ? 1 : m.rows, 1}}};
  }
  Json attributes(const Matrix& m) const override {
    return {{"block_size", {by_tensor(m) ? m.rows : 1, m.cols}},
            {"mm_config", m.input ? tagged("Float8MMConfig", mm_config()) : Json()},
            {"act_quant_kwargs", m.input ? tagged("QuantizeTensorToFloat8Kwargs", kwargs()) : Json()},
            {"kernel_preference", kernel_preference()},
            {"dtype", torch_dtype(torch_name(m.dtype))}};
  }
  Json config(const Matrix& m) const override {
    const Json rows = versioned("PerRow", {{"dim", -1}}), e4m3 = torch_dtype("float8_e4m3fn");
    Json data = {{"set_inductor_config", true}, {"weight_dtype", e4m3}};
    if (!m.input) {
      data["granularity"] = by_tensor(m) ? versioned("PerTensor", Json::object()) : rows;
      return versioned("Float8WeightOnlyConfig", data, 2);
    }
    data["activation_dtype"] = e4m3;
    data["activation_value_lb"] = data["activation_value_ub"] = nullptr;
    data["alg_id"] = 0;
    data["granularity"] = Json::array({rows, rows});
    data["kernel_preference"] = kernel_preference();
    data["mm_config"] = versioned("Float8MMConfig", mm_config());
    data["packing_format"] = tagged("Float8PackingFormat", "PLAIN");
    return versioned("Float8DynamicActivationFloat8WeightConfig", data, 2);
  }
  FieldBytes pack(const Matrix& m, const Parts& parts) const override {
    std::vector<std::byte> scales = as_f32(parts.scales, format_of(m).scale);
    if (by_tensor(m)) scales.resize(sizeof(float));
    return {as_bytes(parts.codes), std::move(scales)};
  }
  void describe(Matrix& m, const Json& attributes, const Json&, const FieldReader& read) const override {
    const Json& block = files::require_array(attributes, "block_size", m.name);
    const bool tensor = block == Json({m.rows, m.cols}) && m.rows != 1;
    if (!tensor && block_of(attributes, m) != m.cols)
      throw Unsupported("{}: block_size {}: fp8 by rows or by tensor is read", m.name, block.dump());
    const Json* activations = files::find_key(attributes, "act_quant_kwargs");
    if (activations) {
      const Json& data = data_of(*activations, "QuantizeTensorToFloat8Kwargs", m.name);
      const Json expected = kwargs();
      for (const char* key : {"float8_dtype", "granularity", "hp_value_lb", "hp_value_ub"})
        if (data.value(key, Json()) != expected.at(key))
          throw Unsupported("{}: act_quant_kwargs: {} {}: expected {}", m.name, key, data.value(key, Json()).dump(),
                            expected.at(key).dump());
    }
    const bool narrow = fits_bf16(read("scale", DType::F32, {tensor ? 1 : m.rows, 1}));
    m.codec = &codec_named(fmt::format("{}{}{}", kFp8, tensor ? "-tensor" : "", narrow ? "-bf16" : ""), m);
    m.input = activations ? &codec_named(std::string(kFp8), m) : nullptr;
  }
  Parts unpack(const Matrix& m, const FieldReader& read) const override {
    Parts parts;
    parts.codes = as_codes(read("qdata", DType::F8E4M3, {m.rows, m.cols}));
    parts.scales = from_f32(read("scale", DType::F32, {by_tensor(m) ? 1 : m.rows, 1}), format_of(m).scale);
    if (by_tensor(m)) parts.scales = repeated(parts.scales, m.rows);
    return parts;
  }

 private:
  static bool by_tensor(const Matrix& m) { return format_of(m).sharing == Sharing::Tensor; }
  static Json mm_config() { return {{"emulate", false}, {"use_fast_accum", true}, {"pad_inner_dim", false}}; }
  static Json kwargs() {
    return {{"float8_dtype", torch_dtype("float8_e4m3fn")},
            {"granularity", tagged("PerRow", {{"dim", -1}})},
            {"mm_config", nullptr},
            {"hp_value_lb", nullptr},
            {"hp_value_ub", nullptr},
            {"kernel_preference", kernel_preference()}};
  }
};

/// Scales lie by tiles or by rows (is_swizzled_scales); no shape is that of both.
std::vector<std::byte> read_scales(const Matrix& m, DType dtype, const FieldReader& read) {
  const std::int64_t groups = groups_of(m);
  const files::SafetensorsTensor* scale = read.find("scale");
  if (scale && scale->shape == Shape{m.rows, groups}) return read("scale", dtype, {m.rows, groups});
  return unswizzled(read("scale", dtype, swizzled_shape(m.rows, groups)), m.rows, groups);
}

void require_block(const Matrix& m, const Json& attributes, std::int64_t expected) {
  if (const std::int64_t block = files::require_int(attributes, "block_size", m.name); block != expected)
    throw Unsupported("{}: block_size {}: expected {}", m.name, block, expected);
}

// ---- NVFP4Tensor: two e2m1 a byte, e4m3 scales in tiles, one f32 scale ----

constexpr std::string_view kNv = "nvfp4", kNvLocal = "nvfp4-local";

class Nvfp4 final : public Layout {
 public:
  std::string_view type() const override { return "NVFP4Tensor"; }
  bool takes(const ScaledFormat& f) const override { return f.mapping == Mapping::Nv || f.mapping == Mapping::NvLocal; }
  std::string refusal(const Matrix& m) const override {
    if (m.rows % 16 != 0 || m.cols % 16 != 0)
      return fmt::format("{} [{}, {}]: NVFP4Tensor's extents are multiples of 16", m.codec->name(), m.rows, m.cols);
    return m.input && m.input != m.codec ? wrong_input(m, type(), m.codec->name()) : "";
  }
  std::vector<Field> fields(const Matrix& m) const override {
    std::vector<Field> all = {{"qdata", DType::U8, {m.rows, m.cols / 2}},
                              {"scale", DType::F8E4M3, swizzled_shape(m.rows, groups_of(m))}};
    if (by_tensor(m)) all.insert(all.begin(), {"per_tensor_scale", DType::F32, {}});
    return all;
  }
  Json attributes(const Matrix& m) const override {
    const Json kwargs = {{"block_size", 16},
                         {"is_swizzled_scales", true},
                         {"use_triton_kernel", false},
                         {"use_dynamic_per_tensor_scale", by_tensor(m)}};
    return {{"is_swizzled_scales", true},
            {"use_triton_kernel", false},
            {"act_quant_kwargs", m.input ? tagged("QuantizeTensorToNVFP4Kwargs", kwargs) : Json()},
            {"block_size", 16},
            {"orig_dtype", torch_dtype(torch_name(m.dtype))}};
  }
  Json config(const Matrix& m) const override {
    Json data = {{"use_dynamic_per_tensor_scale", by_tensor(m)}};
    if (!m.input) return versioned("NVFP4WeightOnlyConfig", data);
    data["step"] = nullptr;
    data["use_triton_kernel"] = false;
    return versioned("NVFP4DynamicActivationNVFP4WeightConfig", data);
  }
  FieldBytes pack(const Matrix& m, const Parts& parts) const override {
    FieldBytes all = {pack_nibbles(parts.codes), swizzled(parts.scales, m.rows, groups_of(m))};
    if (by_tensor(m)) all.insert(all.begin(), {parts.headers.begin(), parts.headers.begin() + sizeof(float)});
    return all;
  }
  void describe(Matrix& m, const Json& attributes, const Json&, const FieldReader& read) const override {
    require_block(m, attributes, 16);
    const Json* activations = files::find_key(attributes, "act_quant_kwargs");
    const bool by_tensor = read.find("per_tensor_scale") != nullptr;
    if (activations) {
      const Json& data = data_of(*activations, "QuantizeTensorToNVFP4Kwargs", m.name);
      if (read.find("act_per_tensor_scale") || data.value("use_dynamic_per_tensor_scale", Json()) != by_tensor)
        throw Unsupported("{}: activations with a calibrated tensor scale are not read", m.name);
    }
    m.codec = &codec_named(std::string(by_tensor ? kNv : kNvLocal), m);
    m.input = activations ? m.codec : nullptr;
  }
  Parts unpack(const Matrix& m, const FieldReader& read) const override {
    Parts parts;
    parts.codes = unpack_nibbles(read("qdata", DType::U8, {m.rows, m.cols / 2}), false);
    parts.scales = read_scales(m, DType::F8E4M3, read);
    if (by_tensor(m)) parts.headers = repeated(read("per_tensor_scale", DType::F32, {}), m.rows);
    return parts;
  }

 private:
  static bool by_tensor(const Matrix& m) { return format_of(m).mapping == Mapping::Nv; }
};

// ---- MXTensor: e4m3 or two e2m1 a byte, E8M0 scales in tiles ----

class Mx final : public Layout {
 public:
  std::string_view type() const override { return "MXTensor"; }
  bool takes(const ScaledFormat& f) const override {
    return f.scale == ScaleType::E8M0 && (f.element == Element::E4M3 || f.element == Element::E2M1);
  }
  std::string refusal(const Matrix& m) const override {
    if (m.dtype != DType::BF16) return fmt::format("{}: MXTensor is for models in bf16", m.codec->name());
    if (!m.input)
      return fmt::format("{} without activations in it: MXTensor is multiplied with activations in its own format",
                         m.codec->name());
    return m.input->name() != codec_name(is_fp4(m)) ? wrong_input(m, type(), codec_name(is_fp4(m))) : "";
  }
  std::vector<Field> fields(const Matrix& m) const override {
    return {is_fp4(m) ? Field{"qdata", DType::U8, {m.rows, m.cols / 2}} : Field{"qdata", DType::F8E4M3, {m.rows, m.cols}},
            {"scale", DType::F8E8M0, swizzled_shape(m.rows, groups_of(m))}};
  }
  Json attributes(const Matrix& m) const override {
    const Json element = torch_dtype(element_name(is_fp4(m)));
    return {{"elem_dtype", element},
            {"block_size", 32},
            {"orig_dtype", torch_dtype(torch_name(m.dtype))},
            {"kernel_preference", kernel_preference()},
            {"act_quant_kwargs", tagged("QuantizeTensorToMXKwargs", {{"elem_dtype", element},
                                                                     {"block_size", 32},
                                                                     {"scaling_mode", scaling_mode()},
                                                                     {"kernel_preference", kernel_preference()},
                                                                     {"is_swizzled_scales", true}})},
            {"is_swizzled_scales", true}};
  }
  Json config(const Matrix& m) const override {
    const Json element = torch_dtype(element_name(is_fp4(m)));
    return versioned("MXDynamicActivationMXWeightConfig", {{"activation_dtype", element},
                                                           {"block_size", 32},
                                                           {"kernel_preference", kernel_preference()},
                                                           {"scaling_mode", scaling_mode()},
                                                           {"weight_dtype", element}});
  }
  FieldBytes pack(const Matrix& m, const Parts& parts) const override {
    return {is_fp4(m) ? pack_nibbles(parts.codes) : as_bytes(parts.codes), swizzled(parts.scales, m.rows, groups_of(m))};
  }
  void describe(Matrix& m, const Json& attributes, const Json&, const FieldReader&) const override {
    require_block(m, attributes, 32);
    const std::string element = dtype_of(attributes, "elem_dtype", m.name);
    if (element != element_name(false) && element != element_name(true))
      throw Unsupported("{}: elem_dtype {}: expected {} or {}", m.name, element, element_name(false), element_name(true));
    const std::string name(codec_name(element == element_name(true)));
    m.codec = &codec_named(name, m);
    m.input = nullptr;
    const Json* activations = files::find_key(attributes, "act_quant_kwargs");
    if (!activations) return;
    const Json& data = data_of(*activations, "QuantizeTensorToMXKwargs", m.name);
    if (data.value("block_size", Json()) != 32 || data.value("elem_dtype", Json()) != torch_dtype(element))
      throw Unsupported("{}: act_quant_kwargs {}: expected the weight's own format", m.name, data.dump());
    m.input = &codec_named(name + std::string(mode_suffix(data.value("scaling_mode", Json()), m)), m);
  }
  Parts unpack(const Matrix& m, const FieldReader& read) const override {
    const Field qdata = fields(m).front();
    const std::vector<std::byte> bytes = read(qdata.name, qdata.dtype, qdata.shape);
    Parts parts;
    parts.codes = is_fp4(m) ? unpack_nibbles(bytes, false) : as_codes(bytes);
    parts.scales = read_scales(m, DType::F8E8M0, read);
    return parts;
  }

 private:
  static bool is_fp4(const Matrix& m) { return format_of(m).element == Element::E2M1; }
  static std::string_view codec_name(bool fp4) { return fp4 ? "mxfp4" : "mxfp8-e4m3"; }
  static std::string_view element_name(bool fp4) { return fp4 ? "float4_e2m1fn_x2" : "float8_e4m3fn"; }
  static Json scaling_mode() { return tagged("ScaleCalculationMode", "RCEIL"); }
  static std::string_view mode_suffix(const Json& mode, const Matrix& m) {
    const Json& name = data_of(mode, "ScaleCalculationMode", m.name);
    if (name == "RCEIL") return "";
    if (name == "FLOOR") return "-floor";
    if (name == "EVEN") return "-even";
    throw Unsupported("{}: scaling_mode {}: expected RCEIL, FLOOR or EVEN", m.name, files::describe(name));
  }
};

}  // namespace

const Layout& float8_layout() {
  static const Float8 layout;
  return layout;
}
const Layout& nvfp4_layout() {
  static const Nvfp4 layout;
  return layout;
}
const Layout& mx_layout() {
  static const Mx layout;
  return layout;
}

}  // namespace temper::wires::torchao
