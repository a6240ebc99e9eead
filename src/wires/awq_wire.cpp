// The layout of AutoAWQ's "gemm". A linear [N, K] in 4 bits with groups of g inputs is
//     qweight I32 [K, N/8]    codes 0 … 15: of each word's eight outputs, those at 0 2 4 6 1 3 5 7 from the lowest bits up
//     qzeros  I32 [K/g, N/8]  zero points, alike
//     scales  F16 [K/g, N]
// w = (code - zero) · scale.
#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "files/json.h"
#include "wires/formats.h"
#include "wires/packing.h"
#include "wires/zero_scale.h"

namespace temper::wires {
namespace {

using files::Json;

constexpr const char* kMethod = "awq";
constexpr const char* kOrigin = "quantization_config";
constexpr int kBits = 4;
constexpr std::int64_t kInWord = 8;
constexpr std::array<std::size_t, kInWord> kOrder = {0, 2, 4, 6, 1, 3, 5, 7};

/// [rows, N] of codes as words, and back.
std::vector<std::byte> to_words(std::span<const std::uint8_t> codes, std::int64_t rows, std::int64_t n) {
  std::vector<std::uint8_t> ordered(codes.size());
  for (std::size_t i = 0; i < codes.size(); i += kInWord)
    for (std::size_t j = 0; j < kInWord; ++j) ordered[i + j] = codes[i + kOrder[j]];
  return pack_bits(ordered, rows, n, kBits, Unit::Word);
}
std::vector<std::uint8_t> from_words(std::span<const std::byte> words, std::int64_t rows, std::int64_t n) {
  const std::vector<std::uint8_t> ordered = unpack_bits(words, rows, n, kBits, Unit::Word);
  std::vector<std::uint8_t> codes(ordered.size());
  for (std::size_t i = 0; i < codes.size(); i += kInWord)
    for (std::size_t j = 0; j < kInWord; ++j) codes[i + kOrder[j]] = ordered[i + j];
  return codes;
}

Parts make_parts(const Matrix& matrix, const ZeroScale* parts) {
  const std::string module = module_of(matrix);
  const std::int64_t k = matrix.cols, n = matrix.rows, groups = groups_of(matrix);
  Parts out;
  out.add(module + ".qweight", DType::I32, {k, n / kInWord},
          parts ? to_words(parts->codes, k, n) : std::vector<std::byte>{});
  out.add(module + ".qzeros", DType::I32, {groups, n / kInWord},
          parts ? to_words(parts->zeros, groups, n) : std::vector<std::byte>{});
  out.add(module + ".scales", DType::F16, {groups, n}, parts ? parts->scales : std::vector<std::byte>{});
  return out;
}

class Awq final : public Wire {
 public:
  std::string_view name() const override { return kMethod; }
  std::string_view readers() const override { return "vLLM, SGLang, transformers with gptqmodel, autoawq"; }

  std::string refusal(const Matrix& matrix) const override {
    if (std::string why = zero_scale_refusal(matrix, kMethod, std::array{kBits}); !why.empty() || !matrix.codec) return why;
    if (matrix.rows % kInWord != 0) return fmt::format("awq packs outputs by eight; {} are none", matrix.rows);
    return "";
  }
  bool one_format() const override { return true; }
  std::vector<files::SafetensorsEntry> entries(const Matrix& matrix) const override {
    return make_parts(matrix, nullptr).entries();
  }
  std::vector<Part> pack(const Matrix& matrix, std::span<const std::byte> encoded) const override {
    const ZeroScale parts = to_zero_scale(matrix, encoded);
    return make_parts(matrix, &parts).take();
  }
  Json config(std::span<const Matrix> matrices) const override {
    const quant::ScaledCodec* codec = common_codec(matrices, kMethod);
    Json plain;
    for (const Matrix& matrix : matrices)
      if (!matrix.codec && matrix.role == quant::Role::Linear) plain.push_back(module_of(matrix));
    if (!plain.is_null()) plain.push_back("lm_head");
    return {
        {"quant_method", kMethod}, {"bits", kBits},     {"group_size", codec && codec->group() > 0 ? codec->group() : -1},
        {"zero_point", true},      {"version", "gemm"}, {"modules_to_not_convert", plain}};
  }

  bool matches(const Json& config) const override {
    const Json* method = files::find_key(config, "quant_method");
    return method && *method == kMethod;
  }
  void describe(Matrix& matrix, const Json& config, const files::SafetensorsMetadata&,
                const FindTensor& find) const override {
    matrix.codec = matrix.input = nullptr;
    if (!find(module_of(matrix) + ".qweight")) return;
    const std::string version = files::optional_string(config, "version", kOrigin).value_or("gemm");
    if (version != "gemm" && version != "GEMM")
      throw Unsupported("{}: version: the layout \"gemm\" is read, found \"{}\"", kOrigin, version);
    if (const std::int64_t bits = files::require_int(config, "bits", kOrigin); bits != kBits)
      throw Unsupported("{}: bits: 4 are read, found {}", kOrigin, bits);
    const std::int64_t stated = files::require_int(config, "group_size", kOrigin), group = stated > 0 ? stated : matrix.cols;
    if (matrix.cols % group != 0 || matrix.rows % kInWord != 0)
      throw Unsupported("{}: {} x {} in groups of {}: only whole groups and words are read", matrix.name, matrix.rows,
                        matrix.cols, group);
    matrix.codec = zero_scale_codec(matrix, kBits, stated, read_zeros(matrix, matrix.cols / group, find));
  }
  std::vector<std::byte> unpack(const Matrix& matrix, const FindTensor& find) const override {
    const std::string module = module_of(matrix);
    const std::int64_t k = matrix.cols, n = matrix.rows, groups = groups_of(matrix);
    const auto scales = require_tensor(find, module + ".scales", DType::F16, {groups, n}).data;
    const auto codes = require_tensor(find, module + ".qweight", DType::I32, {k, n / kInWord}).data;
    return from_zero_scale(matrix,
                           {from_words(codes, k, n), read_zeros(matrix, groups, find), {scales.begin(), scales.end()}});
  }

 private:
  static std::vector<std::uint8_t> read_zeros(const Matrix& matrix, std::int64_t groups, const FindTensor& find) {
    const Shape shape{groups, matrix.rows / kInWord};
    const auto words = require_tensor(find, module_of(matrix) + ".qzeros", DType::I32, shape).data;
    return from_words(words, groups, matrix.rows);
  }
};

}  // namespace

const Wire& awq_wire() {
  static const Awq wire;
  return wire;
}

}  // namespace temper::wires
