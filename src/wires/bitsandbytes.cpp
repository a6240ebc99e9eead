// bitsandbytes 0.50, as transformers stores it. A linear [N, K] in 4 bits is cut into blocks of 64 along its rows, one after
// another:
//     weight U8 [N·K/2, 1]     two codes a byte, the first in the high bits
//     weight.absmax F32 [N·K/64]; with double quantization U8 [N·K/64], its codes in weight.nested_quant_map F32 [256], and
//         weight.nested_absmax F32, one for each 256 of them
//     weight.quant_map F32 [16]   values of the codes
//     weight.quant_state.bitsandbytes__nf4 (…__fp4) U8   JSON: quant_type, blocksize, dtype, shape, nested_*
// LLM.int8, which is only read: weight I8 [N, K], SCB F32 [N] the largest magnitude of each row, which 127 stands for, and
// weight_format U8. Its products take activations in llm-int8 (quant/llm_int8.cpp).
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "files/json.h"
#include "quant/activations.h"
#include "quant/double_quant.h"
#include "wires/formats.h"
#include "wires/layout.h"
#include "wires/packing.h"

namespace temper::wires {
namespace {

using files::Json;
using quant::Element;
using quant::kNestedBlock;
using quant::Mapping;
using quant::ScaledCodec;

constexpr const char* kMethod = "bitsandbytes";
constexpr std::int64_t kBlock = 64;
constexpr const char* kThresholdKey = "llm_int8_threshold";
constexpr double kThreshold = 6.0;

const char* kind_of(const ScaledCodec& codec) { return codec.format().element == Element::Nf4 ? "nf4" : "fp4"; }
bool is_double(const ScaledCodec& codec) { return codec.format().mapping == Mapping::AbsmaxDouble; }
bool is_4bit(const ScaledCodec* codec) {
  return codec && (codec->format().mapping == Mapping::Absmax || codec->format().mapping == Mapping::AbsmaxDouble);
}
std::string state_name(const Matrix& matrix, std::string_view kind) {
  return fmt::format("{}.quant_state.bitsandbytes__{}", matrix.name, kind);
}
std::int64_t nested_count(const Matrix& matrix) {
  return (matrix.rows * matrix.cols / kBlock + kNestedBlock - 1) / kNestedBlock;
}

/// The JSON that quant_state holds, as Python writes it. `offset`: the mean that was taken off the absmaxes.
std::string state_text(const Matrix& matrix, const ScaledCodec& codec, float offset) {
  std::string text = fmt::format(R"({{"quant_type": "{}", "blocksize": {}, "dtype": "{}", "shape": [{}, {}])",
                                 kind_of(codec), kBlock, torch_name(matrix.dtype), matrix.rows, matrix.cols);
  if (is_double(codec))
    text += fmt::format(R"(, "nested_blocksize": {}, "nested_dtype": "float32", "nested_offset": {})", kNestedBlock,
                        static_cast<double>(offset));
  return text + "}";
}

/// Swaps the nibbles of each byte: pack_bits puts the first code low.
std::vector<std::byte> swapped(std::span<const std::byte> bytes) {
  std::vector<std::byte> out(bytes.begin(), bytes.end());
  for (std::byte& byte : out) byte = byte << 4 | byte >> 4;
  return out;
}

/// The row of the encoded matrix, and the place among its nested absmaxes, where the one of nested block `block` stands.
std::pair<std::int64_t, std::int64_t> nested_place(std::int64_t block, std::int64_t groups) {
  const std::int64_t row = block * kNestedBlock / groups;
  return {row, block - row * groups / kNestedBlock};
}

float float_at(std::span<const std::byte> bytes, std::size_t at) {
  float value;
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

class Bitsandbytes final : public Wire {
 public:
  std::string_view name() const override { return kMethod; }
  std::string_view readers() const override { return "transformers, PEFT"; }

  std::string refusal(const Matrix& matrix) const override {
    if (!matrix.codec) return "";
    if (matrix.role != quant::Role::Linear) return "bitsandbytes holds linears; embedding and head stay in 16 bits";
    if (!is_4bit(quant::as_scaled(matrix.codec)))
      return fmt::format("{} is no format of bitsandbytes; those are nf4, fp4, nf4-dq and fp4-dq", matrix.codec->name());
    if (matrix.input) return "bitsandbytes rounds no activations beside 4-bit weights";
    return "";
  }

  std::vector<files::SafetensorsEntry> entries(const Matrix& matrix) const override;
  std::vector<Part> pack(const Matrix& matrix, std::span<const std::byte> encoded) const override;
  Json config(std::span<const Matrix> matrices) const override;

  bool matches(const Json& config) const override {
    const Json* method = files::find_key(config, "quant_method");
    return method && *method == kMethod;
  }
  void describe(Matrix& matrix, const Json& config, const files::SafetensorsMetadata& metadata,
                const FindTensor& find) const override;
  std::vector<std::byte> unpack(const Matrix& matrix, const FindTensor& find) const override;
};

/// `offset` is known when the matrix is packed; the declared tensor's length goes by its digits, so it is written in as many
/// characters whatever it is.
Parts make_parts(const Matrix& matrix, const ScaledCodec::Parts* parts, float offset) {
  const ScaledCodec& codec = *quant::as_scaled(matrix.codec);
  const std::int64_t blocks = matrix.rows * matrix.cols / kBlock, groups = matrix.cols / kBlock;
  std::vector<std::byte> codes, absmax, nested;
  std::string state = state_text(matrix, codec, offset);
  if (is_double(codec)) state.resize(state_text(matrix, codec, 0.0f).size() + 24, ' ');
  if (parts) {
    codes = swapped(pack_bits(parts->codes, 1, matrix.rows * matrix.cols, 4, Unit::Byte));
    absmax = parts->scales;
    const std::size_t header = codec.format().header_bytes(groups);
    for (std::int64_t b = 0; is_double(codec) && b < nested_count(matrix); ++b) {
      const auto [row, place] = nested_place(b, groups);
      const auto from =
          parts->headers.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(row) * header +
                                                               static_cast<std::size_t>(1 + place) * sizeof(float));
      nested.insert(nested.end(), from, from + sizeof(float));
    }
  }
  const auto bytes = [&](auto values) { return parts ? bytes_of(values) : std::vector<std::byte>{}; };
  Parts out;
  out.add(matrix.name, DType::U8, {matrix.rows * matrix.cols / 2, 1}, std::move(codes));
  out.add(matrix.name + ".absmax", is_double(codec) ? DType::U8 : DType::F32, {blocks}, std::move(absmax));
  out.add(matrix.name + ".quant_map", DType::F32, {16}, bytes(std::span<const float>(code_values(codec.format().element))));
  if (is_double(codec)) {
    out.add(matrix.name + ".nested_absmax", DType::F32, {nested_count(matrix)}, std::move(nested));
    out.add(matrix.name + ".nested_quant_map", DType::F32, {256},
            bytes(std::span<const float>(quant::signed_dynamic_map().values())));
  }
  out.add(state_name(matrix, kind_of(codec)), DType::U8, {static_cast<std::int64_t>(state.size())},
          bytes(std::span<const char>(state)));
  return out;
}

std::vector<files::SafetensorsEntry> Bitsandbytes::entries(const Matrix& matrix) const {
  return make_parts(matrix, nullptr, 0.0f).entries();
}

std::vector<Part> Bitsandbytes::pack(const Matrix& matrix, std::span<const std::byte> encoded) const {
  const ScaledCodec& codec = *quant::as_scaled(matrix.codec);
  const ScaledCodec::Parts parts = codec.take_apart(encoded, matrix.rows, matrix.cols);
  return make_parts(matrix, &parts, is_double(codec) ? float_at(parts.headers, 0) : 0.0f).take();
}

Json Bitsandbytes::config(std::span<const Matrix> matrices) const {
  const ScaledCodec* codec = nullptr;
  Json skip = Json::array({"lm_head"});  // whether or not it is tied
  DType dtype = DType::BF16;
  for (const Matrix& matrix : matrices) {
    dtype = matrix.dtype;
    const ScaledCodec* own = quant::as_scaled(matrix.codec);
    if (!matrix.codec) {
      if (matrix.role == quant::Role::Linear) skip.push_back(module_of(matrix));
    } else if (codec && codec != own) {
      throw Unsupported("bitsandbytes: all linears have one format; found {} and {}", codec->name(), own->name());
    } else {
      codec = own;
    }
  }
  return {{"quant_method", kMethod},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"bnb_4bit_quant_type", codec ? kind_of(*codec) : "nf4"},
          {"bnb_4bit_use_double_quant", codec && is_double(*codec)},
          {"bnb_4bit_compute_dtype", torch_name(dtype)},
          {"bnb_4bit_quant_storage", "uint8"},
          {"llm_int8_skip_modules", skip},
          {kThresholdKey, kThreshold},
          {"llm_int8_enable_fp32_cpu_offload", false},
          {"llm_int8_has_fp16_weight", false}};
}

// ---- Reading ----

/// The members of a stored quant_state, and which of the two it is.
std::pair<Json, std::string> read_state(const Matrix& matrix, const FindTensor& find) {
  for (const char* kind : {"nf4", "fp4"})
    if (const files::SafetensorsTensor* tensor = find(state_name(matrix, kind))) {
      if (tensor->dtype != DType::U8)
        throw BadFile("tensor {}: expected U8, found {}", tensor->name, dtype_name(tensor->dtype));
      const std::string_view text(reinterpret_cast<const char*>(tensor->data.data()), tensor->data.size());
      return {files::parse_json(text, tensor->name, {.max_bytes = 1 << 16, .max_depth = 8}), kind};
    }
  throw BadFile("tensor {} is missing beside {}.absmax", state_name(matrix, "nf4"), matrix.name);
}

void check_state(const Matrix& matrix, const Json& state, const std::string& where) {
  if (const std::int64_t block = files::require_int(state, "blocksize", where); block != kBlock)
    throw Unsupported("{}: blocks of {} values are read, found {}", where, kBlock, block);
  const Json expected = Json::array({matrix.rows, matrix.cols});
  if (const Json& shape = files::require_array(state, "shape", where); shape != expected)
    throw BadFile("{}: shape: expected {}, found {}", where, expected.dump(), files::describe(shape));
  if (const auto nested = files::optional_int(state, "nested_blocksize", where); nested && *nested != kNestedBlock)
    throw Unsupported("{}: nested blocks of {} are read, found {}", where, kNestedBlock, *nested);
}

/// What LLM.int8 rounds activations to. Throws Unsupported where its outliers begin elsewhere than by default.
const quant::Codec& int8_input(const Json& config) {
  const double threshold = files::optional_number(config, kThresholdKey, "quantization_config").value_or(kThreshold);
  if (threshold != kThreshold)
    throw Unsupported(
        "quantization_config: {}: activations are rounded with outliers from {:.1f} on; found {}. Write {:.1f} there, or "
        "leave it out, to have them so",
        kThresholdKey, kThreshold, threshold, kThreshold);
  return quant::activation_codec("llm-int8");
}

void Bitsandbytes::describe(Matrix& matrix, const Json& config, const files::SafetensorsMetadata&,
                            const FindTensor& find) const {
  matrix.codec = matrix.input = nullptr;
  if (find(module_of(matrix) + ".SCB")) {
    matrix.codec = quant::find_codec("int8-sym");
    matrix.input = &int8_input(config);
    return;
  }
  if (!find(matrix.name + ".absmax")) return;
  const auto [state, kind] = read_state(matrix, find);
  check_state(matrix, state, state_name(matrix, kind));
  if (matrix.cols % kBlock != 0)
    throw Unsupported(
        "{}: rows of {} elements: blocks of {} values would cross rows, which temper's formats do not; quantize the 16-bit "
        "model to another format",
        matrix.name, matrix.cols, kBlock);
  matrix.codec = quant::find_codec(find(matrix.name + ".nested_absmax") ? kind + "-dq" : kind);
}

/// LLM.int8: the scale of a row is its largest magnitude, of which 1/127 is one step.
std::vector<std::byte> unpack_int8(const Matrix& matrix, const FindTensor& find) {
  const ScaledCodec& codec = *quant::as_scaled(matrix.codec);
  const std::string module = module_of(matrix);
  if (const files::SafetensorsTensor* format = find(module + ".weight_format");
      format && std::ranges::any_of(format->data, [](std::byte b) { return b != std::byte{0}; }))
    throw Unsupported("tensor {}: only rows as they are (0) are read, no tiles of a GPU's", format->name);
  const auto values = require_tensor(find, matrix.name, DType::I8, {matrix.rows, matrix.cols}).data;
  auto largest = values_of<float>(require_tensor(find, module + ".SCB", DType::F32, {matrix.rows}).data);
  for (float& scale : largest) scale *= 7.874015718698502e-3f;
  return codec.put_together({{}, bytes_of<float>(largest), {}, values_of<std::uint8_t>(values)}, matrix.rows, matrix.cols);
}

/// The headers of all rows: offset, the nested absmaxes that the row touches, how many of its groups the first has.
std::vector<std::byte> nested_headers(const Matrix& matrix, const FindTensor& find) {
  const std::int64_t groups = matrix.cols / kBlock, count = nested_count(matrix), in_row = quant::nested_blocks(groups);
  const auto [state, kind] = read_state(matrix, find);
  const std::string where = state_name(matrix, kind);
  check_state(matrix, state, where);
  const auto offset = static_cast<float>(files::require_number(state, "nested_offset", where, -3e38, 3e38));
  const auto map = values_of<float>(require_tensor(find, matrix.name + ".nested_quant_map", DType::F32, {256}).data);
  if (!std::ranges::equal(map, quant::signed_dynamic_map().values()))
    throw Unsupported("tensor {}.nested_quant_map: expected the signed dynamic map of bitsandbytes", matrix.name);
  const auto nested = values_of<float>(require_tensor(find, matrix.name + ".nested_absmax", DType::F32, {count}).data);
  std::vector<std::byte> headers;
  const auto put = [&headers](auto value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    headers.insert(headers.end(), bytes, bytes + sizeof(value));
  };
  for (std::int64_t r = 0; r < matrix.rows; ++r) {
    const std::int64_t first = r * groups / kNestedBlock;
    put(offset);
    for (std::int64_t i = 0; i < in_row; ++i) put(first + i < count ? nested[static_cast<std::size_t>(first + i)] : 0.0f);
    put(static_cast<std::uint16_t>(std::min(groups, kNestedBlock - r * groups % kNestedBlock)));
  }
  return headers;
}

std::vector<std::byte> Bitsandbytes::unpack(const Matrix& matrix, const FindTensor& find) const {
  const ScaledCodec& codec = *quant::as_scaled(matrix.codec);
  if (!is_4bit(&codec)) return unpack_int8(matrix, find);
  const std::int64_t numel = matrix.rows * matrix.cols;
  const auto map = values_of<float>(require_tensor(find, matrix.name + ".quant_map", DType::F32, {16}).data);
  if (!std::ranges::equal(map, code_values(codec.format().element)))
    throw Unsupported("tensor {}.quant_map: expected the values of {}", matrix.name, kind_of(codec));
  const auto codes = require_tensor(find, matrix.name, DType::U8, {numel / 2, 1}).data;
  const auto absmax =
      require_tensor(find, matrix.name + ".absmax", is_double(codec) ? DType::U8 : DType::F32, {numel / kBlock}).data;
  ScaledCodec::Parts parts;
  parts.codes = unpack_bits(swapped(codes), 1, numel, 4, Unit::Byte);
  parts.scales.assign(absmax.begin(), absmax.end());
  if (is_double(codec)) parts.headers = nested_headers(matrix, find);
  return codec.put_together(parts, matrix.rows, matrix.cols);
}

}  // namespace

const Wire& bitsandbytes_wire() {
  static const Bitsandbytes wire;
  return wire;
}

}  // namespace temper::wires
