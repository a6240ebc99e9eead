#include "files/ggml_type.h"

#include <algorithm>
#include <array>

namespace temper::files {
namespace {

constexpr auto kTypes = std::to_array<GgmlTypeInfo>({
    {GgmlType::F32, "F32", 1, 4},
    {GgmlType::F16, "F16", 1, 2},
    {GgmlType::Q4_0, "Q4_0", 32, 18},
    {GgmlType::Q4_1, "Q4_1", 32, 20},
    {GgmlType::Q5_0, "Q5_0", 32, 22},
    {GgmlType::Q5_1, "Q5_1", 32, 24},
    {GgmlType::Q8_0, "Q8_0", 32, 34},
    {GgmlType::Q8_1, "Q8_1", 32, 36},
    {GgmlType::Q2_K, "Q2_K", 256, 84},
    {GgmlType::Q3_K, "Q3_K", 256, 110},
    {GgmlType::Q4_K, "Q4_K", 256, 144},
    {GgmlType::Q5_K, "Q5_K", 256, 176},
    {GgmlType::Q6_K, "Q6_K", 256, 210},
    {GgmlType::Q8_K, "Q8_K", 256, 292},
    {GgmlType::IQ2_XXS, "IQ2_XXS", 256, 66},
    {GgmlType::IQ2_XS, "IQ2_XS", 256, 74},
    {GgmlType::IQ3_XXS, "IQ3_XXS", 256, 98},
    {GgmlType::IQ1_S, "IQ1_S", 256, 50},
    {GgmlType::IQ4_NL, "IQ4_NL", 32, 18},
    {GgmlType::IQ3_S, "IQ3_S", 256, 110},
    {GgmlType::IQ2_S, "IQ2_S", 256, 82},
    {GgmlType::IQ4_XS, "IQ4_XS", 256, 136},
    {GgmlType::I8, "I8", 1, 1},
    {GgmlType::I16, "I16", 1, 2},
    {GgmlType::I32, "I32", 1, 4},
    {GgmlType::I64, "I64", 1, 8},
    {GgmlType::F64, "F64", 1, 8},
    {GgmlType::IQ1_M, "IQ1_M", 256, 56},
    {GgmlType::BF16, "BF16", 1, 2},
    {GgmlType::TQ1_0, "TQ1_0", 256, 54},
    {GgmlType::TQ2_0, "TQ2_0", 256, 66},
    {GgmlType::MXFP4, "MXFP4", 32, 17},
    {GgmlType::NVFP4, "NVFP4", 64, 36},
    {GgmlType::Q1_0, "Q1_0", 128, 18},
    {GgmlType::Q2_0, "Q2_0", 64, 18},
});

constexpr std::array<std::pair<GgmlType, DType>, 8> kPlain = {{{GgmlType::F32, DType::F32},
                                                               {GgmlType::F16, DType::F16},
                                                               {GgmlType::BF16, DType::BF16},
                                                               {GgmlType::F64, DType::F64},
                                                               {GgmlType::I8, DType::I8},
                                                               {GgmlType::I16, DType::I16},
                                                               {GgmlType::I32, DType::I32},
                                                               {GgmlType::I64, DType::I64}}};

char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

}  // namespace

const GgmlTypeInfo* find_ggml_type(std::uint32_t id) {
  const auto row = std::ranges::find(kTypes, static_cast<GgmlType>(id), &GgmlTypeInfo::type);
  return row == kTypes.end() ? nullptr : &*row;
}

const GgmlTypeInfo* find_ggml_type(std::string_view name) {
  for (const GgmlTypeInfo& row : kTypes)
    if (std::ranges::equal(row.name, name, {}, {}, upper)) return &row;
  return nullptr;
}

const GgmlTypeInfo& ggml_type_info(GgmlType type) {
  const GgmlTypeInfo* row = find_ggml_type(static_cast<std::uint32_t>(type));
  if (!row) throw LogicError("no ggml type has id {}", static_cast<std::uint32_t>(type));
  return *row;
}

std::string_view ggml_type_name(GgmlType type) { return ggml_type_info(type).name; }

std::size_t ggml_row_bytes(GgmlType type, std::int64_t cols) {
  const GgmlTypeInfo& info = ggml_type_info(type);
  if (cols < 0 || cols % info.block_elements != 0) {
    throw LogicError("a row of {} elements is no whole number of {} blocks of {}", cols, info.name, info.block_elements);
  }
  return static_cast<std::size_t>(cols / info.block_elements) * info.block_bytes;
}

std::optional<DType> plain_dtype(GgmlType type) {
  for (const auto& [ggml, dtype] : kPlain)
    if (ggml == type) return dtype;
  return std::nullopt;
}

std::optional<GgmlType> ggml_type_of(DType dtype) {
  for (const auto& [ggml, plain] : kPlain)
    if (plain == dtype) return ggml;
  return std::nullopt;
}

}  // namespace temper::files
