// The layout of AutoGPTQ and gptqmodel. A linear [N, K] in integers of b bits (2, 3, 4, 8) with groups of g inputs is
//     qweight I32 [K·b/32, N]    codes 0 … 2^b - 1 as a stream along K, lowest bits first
//     qzeros  I32 [K/g, N·b/32]  zero points as a stream along N; "gptq" stores them less one (mod 2^b), "gptq_v2" as they
//     are scales  F16 [K/g, N] g_idx   I32 [K]            the group of each input
// w = (code - zero) · scale. With desc_act inputs were quantized in an order of their own, and g_idx is no run of groups.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "files/json.h"
#include "wires/formats.h"
#include "wires/packing.h"
#include "wires/zero_scale.h"

namespace temper::wires {
namespace {

using files::Json;

constexpr const char* kOrigin = "quantization_config";
constexpr int kBits[] = {2, 3, 4, 8};
constexpr std::int64_t kWordBits = 32;

int bits_of(const Matrix& matrix) { return quant::as_scaled(matrix.codec)->format().bits(); }

class Gptq final : public Wire {
 public:
  explicit Gptq(bool v2) : v2_(v2) {}

  std::string_view name() const override { return v2_ ? "gptq-v2" : "gptq"; }
  std::string_view readers() const override {
    return v2_ ? "vLLM, gptqmodel" : "vLLM, gptqmodel, transformers with gptqmodel, SGLang";
  }
  std::string refusal(const Matrix& matrix) const override;
  bool one_format() const override { return true; }
  std::vector<files::SafetensorsEntry> entries(const Matrix& matrix) const override {
    return make_parts(matrix, nullptr).entries();
  }
  std::vector<Part> pack(const Matrix& matrix, std::span<const std::byte> encoded) const override {
    const ZeroScale parts = to_zero_scale(matrix, encoded);
    return make_parts(matrix, &parts).take();
  }
  Json config(std::span<const Matrix> matrices) const override;

  bool matches(const Json& config) const override;
  void describe(Matrix& matrix, const Json& config, const files::SafetensorsMetadata& metadata,
                const FindTensor& find) const override;
  std::vector<std::byte> unpack(const Matrix& matrix, const FindTensor& find) const override;

 private:
  int zero_offset() const { return v2_ ? 0 : 1; }
  Parts make_parts(const Matrix& matrix, const ZeroScale* parts) const;
  std::vector<std::uint8_t> read_zeros(const Matrix& matrix, std::int64_t groups, int bits, const FindTensor& find) const;

  bool v2_;
};

std::string Gptq::refusal(const Matrix& matrix) const {
  if (std::string why = zero_scale_refusal(matrix, name(), kBits); !why.empty() || !matrix.codec) return why;
  if (!v2_ && quant::as_scaled(matrix.codec)->format().asymmetric())
    return "gptq stores zero points less one, and its readers differ on those of 0; export to gptq-v2";
  if (matrix.rows * bits_of(matrix) % kWordBits != 0 || matrix.cols * bits_of(matrix) % kWordBits != 0)
    return fmt::format("{} packs codes into whole words of 32 bits along both sides; {} x {} codes of {} bits are none",
                       name(), matrix.rows, matrix.cols, bits_of(matrix));
  return "";
}

Parts Gptq::make_parts(const Matrix& matrix, const ZeroScale* parts) const {
  const int bits = bits_of(matrix);
  const std::int64_t words = matrix.cols * bits / kWordBits, groups = groups_of(matrix), n = matrix.rows;
  std::vector<std::byte> codes, zeros, scales, order;
  if (parts) {
    codes = transposed(pack_bits(transposed(parts->codes, matrix.cols, n), n, matrix.cols, bits, Unit::Word), n, words, 4);
    std::vector<std::uint8_t> stored = parts->zeros;
    add_to_codes(stored, -zero_offset(), bits);
    zeros = pack_bits(stored, groups, n, bits, Unit::Word);
    scales = parts->scales;
    std::vector<std::int32_t> group_of_input(static_cast<std::size_t>(matrix.cols));
    for (std::size_t i = 0; i < group_of_input.size(); ++i)
      group_of_input[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(i) / group_elements(matrix));
    order = bytes_of<std::int32_t>(group_of_input);
  }
  const std::string module = module_of(matrix);
  Parts out;
  out.add(module + ".qweight", DType::I32, {words, n}, std::move(codes));
  out.add(module + ".qzeros", DType::I32, {groups, n * bits / kWordBits}, std::move(zeros));
  out.add(module + ".scales", DType::F16, {groups, n}, std::move(scales));
  out.add(module + ".g_idx", DType::I32, {matrix.cols}, std::move(order));
  return out;
}

Json Gptq::config(std::span<const Matrix> matrices) const {
  const quant::ScaledCodec* codec = common_codec(matrices, name());
  Json json = {{"quant_method", "gptq"},
               {"checkpoint_format", v2_ ? "gptq_v2" : "gptq"},
               {"bits", codec ? codec->format().bits() : 4},
               {"group_size", codec && codec->group() > 0 ? codec->group() : -1},
               {"desc_act", false},
               {"sym", !codec || !codec->format().asymmetric()},
               {"lm_head", false},
               {"true_sequential", true},
               {"pack_dtype", "int32"},
               {"meta", {{"quantizer", {"temper"}}}}};
  // gptqmodel's and vLLM's way to leave modules out: patterns with a minus.
  for (const Matrix& matrix : matrices) {
    if (matrix.codec || matrix.role != quant::Role::Linear) continue;
    std::string pattern = "-:^";
    for (const char c : module_of(matrix)) pattern += c == '.' ? std::string("\\.") : std::string(1, c);
    json["dynamic"][pattern + "$"] = Json::object();
  }
  return json;
}

// ---- Reading ----

bool Gptq::matches(const Json& config) const {
  const Json* method = files::find_key(config, "quant_method");
  if (!method || *method != "gptq") return false;
  const Json* format = files::find_key(config, "checkpoint_format");
  return v2_ == (format && *format == "gptq_v2");
}

std::vector<std::uint8_t> Gptq::read_zeros(const Matrix& matrix, std::int64_t groups, int bits,
                                           const FindTensor& find) const {
  const Shape shape{groups, matrix.rows * bits / kWordBits};
  const auto packed = require_tensor(find, module_of(matrix) + ".qzeros", DType::I32, shape).data;
  std::vector<std::uint8_t> zeros = unpack_bits(packed, groups, matrix.rows, bits, Unit::Word);
  add_to_codes(zeros, zero_offset(), bits);
  return zeros;
}

void require_runs(const Matrix& matrix, std::int64_t group, const FindTensor& find) {
  const std::string name = module_of(matrix) + ".g_idx";
  if (!find(name)) return;  // some writers leave it out where inputs are in order
  const auto order = values_of<std::int32_t>(require_tensor(find, name, DType::I32, {matrix.cols}).data);
  for (std::size_t i = 0; i < order.size(); ++i)
    if (order[i] != static_cast<std::int64_t>(i) / group)
      throw Unsupported(
          "tensor {}: input {} is in group {}, expected {}: inputs quantized in an order of their own (desc_act) are not "
          "read; take a checkpoint without it",
          name, i, order[i], static_cast<std::int64_t>(i) / group);
}

void Gptq::describe(Matrix& matrix, const Json& config, const files::SafetensorsMetadata&, const FindTensor& find) const {
  matrix.codec = matrix.input = nullptr;
  if (!find(module_of(matrix) + ".qweight")) return;
  const std::string format = files::optional_string(config, "checkpoint_format", kOrigin).value_or("gptq");
  if (format != "gptq" && format != "gptq_v2")
    throw Unsupported("{}: checkpoint_format \"{}\" is not read, but gptq and gptq_v2", kOrigin, format);
  if (const Json* dynamic = files::optional_object(config, "dynamic", kOrigin))
    for (const auto& [pattern, change] : dynamic->items())
      if (!pattern.starts_with("-:"))
        throw Unsupported("{}: dynamic: other bits or groups for some modules (\"{}\") are not read", kOrigin, pattern);
  const std::int64_t bits = files::require_int(config, "bits", kOrigin),
                     stated = files::require_int(config, "group_size", kOrigin);
  if (std::ranges::find(kBits, bits) == std::end(kBits))
    throw Unsupported("{}: bits: 2, 3, 4 and 8 are read, found {}", kOrigin, bits);
  const std::int64_t group = stated > 0 ? stated : matrix.cols;
  if (matrix.cols % group != 0 || matrix.rows * bits % kWordBits != 0 || matrix.cols * bits % kWordBits != 0)
    throw Unsupported("{}: {} x {} codes of {} bits in groups of {}: only whole groups and words are read", matrix.name,
                      matrix.rows, matrix.cols, bits, group);
  require_runs(matrix, group, find);
  matrix.codec =
      zero_scale_codec(matrix, bits, stated, read_zeros(matrix, matrix.cols / group, static_cast<int>(bits), find));
}

std::vector<std::byte> Gptq::unpack(const Matrix& matrix, const FindTensor& find) const {
  const int bits = bits_of(matrix);
  const std::string module = module_of(matrix);
  const std::int64_t words = matrix.cols * bits / kWordBits, groups = groups_of(matrix), n = matrix.rows;
  const auto codes = require_tensor(find, module + ".qweight", DType::I32, {words, n}).data;
  const auto scales = require_tensor(find, module + ".scales", DType::F16, {groups, n}).data;
  ZeroScale parts;
  parts.codes = transposed(unpack_bits(transposed(codes, words, n, 4), n, matrix.cols, bits, Unit::Word), n, matrix.cols);
  parts.zeros = read_zeros(matrix, groups, bits, find);
  parts.scales.assign(scales.begin(), scales.end());
  return from_zero_scale(matrix, parts);
}

}  // namespace

const Wire& gptq_wire() {
  static const Gptq wire(false);
  return wire;
}

const Wire& gptq_v2_wire() {
  static const Gptq wire(true);
  return wire;
}

}  // namespace temper::wires
