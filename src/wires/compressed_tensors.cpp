// compressed-tensors 0.20: what llm-compressor writes, and vLLM and transformers read. A linear [N, K] of a module is
//     pack-quantized        weight_packed I32 [N, ⌈K·bits/32⌉], weight_scale [N, groups], weight_shape I64 [2]; of
//     asymmetric
//                           ones weight_zero_point I32 [⌈N·bits/32⌉, groups], packed along the rows
//     int-quantized         weight I8 [N, K], weight_scale [N, groups]; asymmetric: weight_zero_point I8 [N, groups]
//     float-quantized       weight F8_E4M3 [N, K], weight_scale [N, 1], [1] or, in blocks of 128 × 128, [⌈N/128⌉, K/128]
//     nvfp4-pack-quantized  weight_packed U8 [N, K/2], weight_scale F8_E4M3 [N, K/16], weight_global_scale F32 [1]; with
//                           activations in NVFP4 input_global_scale F32 [1]
//     any of them           where scales of activations are static, input_scale [1] and, asymmetric, input_zero_point I8
//                           [1]; where outputs are rounded, output_scale and output_zero_point
//     mxfp4-, mxfp6-pack-quantized, mxfp8-quantized
//                           weight_packed U8 [N, K·bits/8] or weight F8_E4M3 [N, K], weight_scale U8 [N, K/32], E8M0
// Packed integers are stored plus 2^(bits-1). Scales have the dtype of the model.
#include "wires/compressed_tensors.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "quant/activations.h"
#include "wires/formats.h"
#include "wires/layout.h"
#include "wires/packing.h"

namespace temper::wires {
namespace {

using quant::Element;
using quant::ScaledCodec;
using quant::ScaledFormat;
using quant::ScaleType;
using quant::Sharing;

constexpr std::int64_t kBand = 128;

class CompressedTensors final : public Wire {
 public:
  std::string_view name() const override { return "compressed-tensors"; }
  std::string_view readers() const override { return "vLLM, transformers"; }
  std::string refusal(const Matrix& matrix) const override { return ct_refusal(matrix); }
  bool carries_outputs() const override { return true; }
  std::vector<files::SafetensorsEntry> entries(const Matrix& matrix) const override;
  std::vector<Part> pack(const Matrix& matrix, std::span<const std::byte> encoded) const override;
  nlohmann::json config(std::span<const Matrix> matrices) const override { return ct_config(matrices); }
  bool matches(const nlohmann::json& config) const override { return ct_matches(config); }
  void describe(Matrix& matrix, const nlohmann::json& config, const files::SafetensorsMetadata& metadata,
                const FindTensor& find) const override;
  std::vector<std::byte> unpack(const Matrix& matrix, const FindTensor& find) const override;
};

/// How a matrix lies there: names, dtypes and shapes.
struct Layout {
  const ScaledCodec& codec;
  bool packed;  ///< Codes in weight_packed, else a byte each in weight.
  std::string module;
  std::int64_t rows, cols, groups;

  const ScaledFormat& format() const { return codec.format(); }
  bool whole_words() const { return packed && format().integer(); }
  Unit unit() const { return whole_words() ? Unit::Word : Unit::Byte; }
  std::size_t packed_bytes() const { return packed_row_bytes(cols, format().bits(), unit()); }

  std::string codes_name() const { return module + (packed ? ".weight_packed" : ".weight"); }
  DType codes_dtype() const {
    if (packed) return format().integer() ? DType::I32 : DType::U8;
    return format().integer() ? DType::I8 : DType::F8E4M3;
  }
  Shape codes_shape() const {
    return {rows, packed ? static_cast<std::int64_t>(packed_bytes() / static_cast<std::size_t>(unit())) : cols};
  }
  std::string scale_name() const { return module + ".weight_scale"; }
  Shape scale_shape() const {
    if (format().sharing == Sharing::Band) return {(rows + kBand - 1) / kBand, groups};
    if (has_global() || format().sharing == Sharing::None) return {rows, groups};
    return {1};
  }
  /// Rows of the encoded matrix between those whose scales are stored.
  std::int64_t scale_step() const {
    if (format().sharing == Sharing::Band) return kBand;
    return scale_shape().rank() == 1 ? rows : 1;
  }
  std::string zero_name() const { return module + ".weight_zero_point"; }
  DType zero_dtype() const { return packed ? DType::I32 : DType::I8; }
  Shape zero_shape() const {
    if (!packed) return {rows, groups};
    return {static_cast<std::int64_t>(packed_row_bytes(rows, format().bits(), Unit::Word) / 4), groups};
  }
  std::string shape_name() const { return module + ".weight_shape"; }
  bool has_global() const { return format().mapping == quant::Mapping::NvCt; }
  std::string global_name() const { return module + ".weight_global_scale"; }
};

Layout layout_of(const Matrix& matrix, bool packed) {
  const ScaledCodec& codec = *quant::as_scaled(matrix.codec);
  return {codec, packed, module_of(matrix), matrix.rows, matrix.cols, codec.group() == 0 ? 1 : matrix.cols / codec.group()};
}

/// As writers of the package choose it: integers are packed where activations stay 16-bit.
bool writes_packed(const Matrix& matrix) {
  const ScaledFormat& format = quant::as_scaled(matrix.codec)->format();
  return format.integer() ? matrix.input == nullptr : format.bits() < 8;
}

/// The parts, with the bytes of `parts` where there are any.
Parts make_parts(const Layout& at, const ScaledCodec::Parts* parts) {
  const ScaledFormat& format = at.format();
  const int offset = 1 << (format.bits() - 1);
  std::vector<std::byte> codes, scales, zeros, global;
  if (parts) {
    std::vector<std::uint8_t> raw = parts->codes;
    if (at.whole_words()) add_to_codes(raw, offset, format.bits());
    codes = at.packed ? pack_bits(raw, at.rows, at.cols, format.bits(), at.unit()) : bytes_of<std::uint8_t>(raw);
    const std::size_t row = static_cast<std::size_t>(at.groups) * format.scale_bytes();
    for (std::int64_t r = 0; r < at.rows; r += at.scale_step()) {
      const auto from = parts->scales.begin() + static_cast<std::ptrdiff_t>(r) * static_cast<std::ptrdiff_t>(row);
      scales.insert(scales.end(), from, from + static_cast<std::ptrdiff_t>(row));
    }
    if (format.asymmetric() && at.packed) {
      std::vector<std::uint8_t> points = transposed(values_of<std::uint8_t>(parts->zeros), at.rows, at.groups);
      add_to_codes(points, offset, format.bits());
      const std::vector<std::byte> words = pack_bits(points, at.groups, at.rows, format.bits(), Unit::Word);
      zeros = transposed(words, at.groups, at.zero_shape()[0], 4);
    } else {
      zeros = parts->zeros;
    }
    if (at.has_global()) global.assign(parts->headers.begin(), parts->headers.begin() + sizeof(float));
  }
  Parts out;
  out.add(at.codes_name(), at.codes_dtype(), at.codes_shape(), std::move(codes));
  out.add(at.scale_name(), scale_dtype(format.scale), at.scale_shape(), std::move(scales));
  if (format.asymmetric()) out.add(at.zero_name(), at.zero_dtype(), at.zero_shape(), std::move(zeros));
  if (at.has_global()) out.add(at.global_name(), DType::F32, {1}, std::move(global));
  if (at.whole_words()) {
    const std::int64_t shape[] = {at.rows, at.cols};
    out.add(at.shape_name(), DType::I64, {2}, parts ? bytes_of<std::int64_t>(shape) : std::vector<std::byte>{});
  }
  return out;
}

/// "input" or "output": what is stored of a static range, with its bytes where it is known.
void add_range(Parts& parts, const Matrix& matrix, const std::string& which, const quant::Codec* codec,
               const quant::StaticRange& range, bool with_bytes) {
  if (!codec || !quant::has_static_range(*codec)) return;
  const std::string at = fmt::format("{}.{}", module_of(matrix), which);
  if (with_bytes && !range.known()) throw LogicError("{}: no range of {}s", matrix.name, which);
  const ScaledFormat& format = quant::as_scaled(codec)->format();
  const bool global = format.mapping == quant::Mapping::NvCt;
  const DType dtype = global ? DType::F32 : matrix.dtype;
  std::vector<std::byte> scale, zero;
  if (with_bytes) {
    const float values[] = {range.scale};
    const std::int8_t points[] = {static_cast<std::int8_t>(range.zero)};
    const bf16 halves[] = {to_bf16(range.scale)};
    const f16 f16s[] = {to_f16(range.scale)};
    scale = dtype == DType::F32    ? bytes_of<float>(values)
            : dtype == DType::BF16 ? bytes_of<bf16>(halves)
                                   : bytes_of<f16>(f16s);
    zero = bytes_of<std::int8_t>(points);
  }
  parts.add(fmt::format("{}_{}", at, global ? "global_scale" : "scale"), dtype, {1}, std::move(scale));
  if (format.asymmetric()) parts.add(at + "_zero_point", DType::I8, {1}, std::move(zero));
}

void add_ranges(Parts& parts, const Matrix& matrix, bool with_bytes) {
  add_range(parts, matrix, "input", matrix.input, matrix.input_range, with_bytes);
  add_range(parts, matrix, "output", matrix.output, matrix.output_range, with_bytes);
}

/// Reads what add_range wrote; scales also in other dtypes.
quant::StaticRange read_range(const Matrix& matrix, const std::string& which, const quant::Codec* codec,
                              const FindTensor& find) {
  if (!codec || !quant::has_static_range(*codec)) return {};
  const ScaledFormat& format = quant::as_scaled(codec)->format();
  const std::string at = fmt::format("{}.{}_", module_of(matrix), which),
                    name = at + (format.mapping == quant::Mapping::NvCt ? "global_scale" : "scale");
  const files::SafetensorsTensor* scale = find(name);
  if (!scale) throw BadFile("tensor {} is missing: expected the static scale of activations there", name);
  if (!scale_type(scale->dtype) || scale->shape.numel() != 1)
    throw BadFile("tensor {}: expected one number in F32, BF16 or F16, found {} {}", name, dtype_name(scale->dtype),
                  scale->shape.str());
  quant::StaticRange range;
  range.scale = scale->dtype == DType::F32    ? values_of<float>(scale->data)[0]
                : scale->dtype == DType::BF16 ? to_float(values_of<bf16>(scale->data)[0])
                                              : to_float(values_of<f16>(scale->data)[0]);
  if (!(range.scale > 0.0f) || !std::isfinite(range.scale))
    throw BadFile("tensor {}: expected a finite number above 0, found {}", name, range.scale);
  if (!format.asymmetric()) return range;
  range.zero = values_of<std::int8_t>(require_tensor(find, at + "zero_point", DType::I8, {1}).data)[0];
  return range;
}

std::vector<files::SafetensorsEntry> CompressedTensors::entries(const Matrix& matrix) const {
  Parts parts = make_parts(layout_of(matrix, writes_packed(matrix)), nullptr);
  add_ranges(parts, matrix, false);
  return parts.entries();
}

std::vector<Part> CompressedTensors::pack(const Matrix& matrix, std::span<const std::byte> encoded) const {
  const Layout layout = layout_of(matrix, writes_packed(matrix));
  const ScaledCodec::Parts parts = layout.codec.take_apart(encoded, matrix.rows, matrix.cols);
  Parts out = make_parts(layout, &parts);
  add_ranges(out, matrix, true);
  return std::move(out).take();
}

void CompressedTensors::describe(Matrix& matrix, const nlohmann::json& config, const files::SafetensorsMetadata&,
                                 const FindTensor& find) const {
  const std::string module = module_of(matrix);
  const files::SafetensorsTensor* scale = find(module + ".weight_scale");
  if (!scale) {
    if (find(module + ".weight_packed")) throw BadFile("tensor {}.weight_scale is missing beside weight_packed", module);
    return;
  }
  if (find(module + ".weight_g_idx"))
    throw Unsupported("{}: columns are quantized in an order of their own (weight_g_idx), which temper does not read",
                      module);
  ct_describe(matrix, config, scale->dtype);
  matrix.input_range = read_range(matrix, "input", matrix.input, find);
  matrix.output_range = read_range(matrix, "output", matrix.output, find);
  require_fit(matrix, *matrix.codec);
}

std::vector<std::byte> CompressedTensors::unpack(const Matrix& matrix, const FindTensor& find) const {
  const Layout at = layout_of(matrix, find(module_of(matrix) + ".weight_packed") != nullptr);
  const ScaledFormat& format = at.format();
  if (!at.packed && format.bits() < 8 && !format.integer())
    throw BadFile("tensor {} is missing: expected codes of {} bits there", at.module + ".weight_packed", format.bits());
  const int offset = 1 << (format.bits() - 1);
  const auto bytes = [&](const std::string& name, DType dtype, const Shape& shape) {
    return require_tensor(find, name, dtype, shape).data;
  };
  ScaledCodec::Parts parts;
  const auto codes = bytes(at.codes_name(), at.codes_dtype(), at.codes_shape());
  parts.codes = at.packed ? unpack_bits(codes, at.rows, at.cols, format.bits(), at.unit()) : values_of<std::uint8_t>(codes);
  if (at.whole_words()) add_to_codes(parts.codes, -offset, format.bits());
  if (!at.packed && format.integer())
    for (const std::uint8_t code : parts.codes)
      if (const int value = static_cast<std::int8_t>(code); value < -offset || value >= offset)
        throw BadFile("tensor {}: expected integers of {} bits, found {}", at.codes_name(), format.bits(), value);
  const auto scales = bytes(at.scale_name(), scale_dtype(format.scale), at.scale_shape());
  const std::size_t row = static_cast<std::size_t>(at.groups) * format.scale_bytes();
  for (std::int64_t r = 0; r < at.rows; ++r) {
    const auto from = scales.subspan(static_cast<std::size_t>(r / at.scale_step()) * row, row);
    parts.scales.insert(parts.scales.end(), from.begin(), from.end());
  }
  if (format.asymmetric()) {
    const auto zeros = bytes(at.zero_name(), at.zero_dtype(), at.zero_shape());
    parts.zeros.assign(zeros.begin(), zeros.end());
    if (at.packed) {
      const std::vector<std::byte> words = transposed(parts.zeros, at.zero_shape()[0], at.groups, 4);
      std::vector<std::uint8_t> points = unpack_bits(words, at.groups, at.rows, format.bits(), Unit::Word);
      for (std::uint8_t& point : points) point = static_cast<std::uint8_t>(point - offset);
      parts.zeros = bytes_of<std::uint8_t>(transposed(points, at.groups, at.rows));
    }
  }
  if (at.has_global()) {
    const auto global = bytes(at.global_name(), DType::F32, {1});
    if (const float value = values_of<float>(global)[0]; !(value > 0.0f) || !std::isfinite(value))
      throw BadFile("tensor {}: expected a finite number above 0, found {}", at.global_name(), value);
    for (std::int64_t r = 0; r < at.rows; ++r) parts.headers.insert(parts.headers.end(), global.begin(), global.end());
  }
  if (at.whole_words()) {
    const auto shape = values_of<std::int64_t>(bytes(at.shape_name(), DType::I64, {2}));
    if (shape[0] != at.rows || shape[1] != at.cols)
      throw BadFile("tensor {}: expected [{}, {}], found [{}, {}]", at.shape_name(), at.rows, at.cols, shape[0], shape[1]);
  }
  return at.codec.put_together(parts, at.rows, at.cols);
}

}  // namespace

const Wire& compressed_tensors_wire() {
  static const CompressedTensors wire;
  return wire;
}

}  // namespace temper::wires
