#include "quant/scaled_format.h"

#include <array>
#include <charconv>
#include <utility>
#include <vector>

#include "base/error.h"
#include "quant/double_quant.h"

namespace temper::quant {
namespace {

constexpr std::int64_t kChunk = 32;

// bitsandbytes 0.50, functional.get_4bit_type.
constexpr std::array<float, 16> kNf4 = {-0x1p+0f,        -0x1.647362p-1f, -0x1.0cd66p-1f,  -0x1.946540p-2f,
                                        -0x1.23449ap-2f, -0x1.7a6a7ep-3f, -0x1.74f0e2p-4f, 0.0f,
                                        0x1.45f5fep-4f,  0x1.4995c6p-3f,  0x1.f809bap-3f,  0x1.5a0674p-2f,
                                        0x1.c34970p-2f,  0x1.200f56p-1f,  0x1.722766p-1f,  0x1p+0f};
constexpr std::array<float, 16> kFp4 = {
    0.0f, 0x1.555556p-8f,  0x1.555556p-1f,  0x1p+0f,  0x1.555556p-2f,  0x1p-1f,  0x1.555556p-3f,  0x1p-2f,
    0.0f, -0x1.555556p-8f, -0x1.555556p-1f, -0x1p+0f, -0x1.555556p-2f, -0x1p-1f, -0x1.555556p-3f, -0x1p-2f};

std::string without(std::string_view& name, std::string_view suffix) {
  if (!name.ends_with(suffix)) return {};
  name.remove_suffix(suffix.size());
  return std::string(suffix);
}

std::vector<ScaledFormat> make_float_formats() {
  using enum Element;
  using enum Mapping;
  constexpr ScaleType f32 = ScaleType::F32, b16 = ScaleType::BF16, e8m0 = ScaleType::E8M0, e4m3 = ScaleType::E4M3;
  std::vector<ScaledFormat> all = {
      {"fp8-e4m3", E4M3, Fp8, f32, 0},
      {"fp8-e4m3-bf16", E4M3, Fp8, b16, 0},
      {"fp8-e4m3-tensor", E4M3, Fp8, f32, 0, Sharing::Tensor},
      {"fp8-e4m3-tensor-bf16", E4M3, Fp8, b16, 0, Sharing::Tensor},
      {"fp8-e4m3-b128", E4M3, Fp8, f32, 128, Sharing::Band},
      {"fp8-e4m3-b128-bf16", E4M3, Fp8, b16, 128, Sharing::Band},
      {"fp8-e4m3-ct", E4M3, CtFp8, f32, 0},
      {"fp8-e4m3-ct-bf16", E4M3, CtFp8, b16, 0},
      {"fp8-e4m3-ct-tensor", E4M3, CtFp8, f32, 0, Sharing::Tensor},
      {"fp8-e4m3-ct-tensor-bf16", E4M3, CtFp8, b16, 0, Sharing::Tensor},
      {"fp8-e4m3-ct-g128", E4M3, CtFp8, f32, 128},
      {"fp8-e4m3-ct-g128-bf16", E4M3, CtFp8, b16, 128},
      {"fp8-e4m3-ct-b128", E4M3, CtFp8, f32, 128, Sharing::Band},
      {"fp8-e4m3-ct-b128-bf16", E4M3, CtFp8, b16, 128, Sharing::Band},
      {"fp8-e5m2", E5M2, Fp8, f32, 0},
      {"fp8-e5m2-bf16", E5M2, Fp8, b16, 0},
      {"fp8-e5m2-tensor", E5M2, Fp8, f32, 0, Sharing::Tensor},
      {"nvfp4", E2M1, Nv, e4m3, 16, Sharing::Tensor},
      {"nvfp4-local", E2M1, NvLocal, e4m3, 16},
      {"nvfp4-ct", E2M1, NvCt, e4m3, 16, Sharing::Tensor},
      {"fp8-static", E4M3, CtFp8, f32, 0, Sharing::None, true},
      {"nvfp4-static", E2M1, NvCt, e4m3, 16, Sharing::None, true},
      {"nf4", Nf4, Absmax, f32, 64},
      {"nf4-dq", Nf4, AbsmaxDouble, ScaleType::Dynamic8, 64, Sharing::Tensor},
      {"fp4", Fp4, Absmax, f32, 64},
      {"fp4-dq", Fp4, AbsmaxDouble, ScaleType::Dynamic8, 64, Sharing::Tensor},
      {"mxfp8-e4m3-ct", E4M3, MxCt, e8m0, 32},
  };
  // compressed-tensors' rule for 4 and 6 bits is that of the even mode.
  for (const auto& [name, element] : {std::pair{"mxfp4", E2M1}, std::pair{"mxfp6-e2m3", E2M3}, std::pair{"mxfp6-e3m2", E3M2},
                                      std::pair{"mxfp8-e4m3", E4M3}, std::pair{"mxfp8-e5m2", E5M2}})
    for (const auto& [rule, mapping] : {std::pair{"", MxCeil}, std::pair{"-floor", MxFloor}, std::pair{"-even", MxEven}})
      all.push_back({std::string(name) + rule, element, mapping, e8m0, 32});
  return all;
}

}  // namespace

int element_bits(Element element) {
  static constexpr int kBits[] = {2, 3, 4, 5, 6, 8, 8, 8, 6, 6, 4, 4, 4};
  return kBits[static_cast<std::size_t>(element)];
}

const SmallFloat* small_float(Element element) {
  switch (element) {
    case Element::E4M3: return &kE4M3;
    case Element::E5M2: return &kE5M2;
    case Element::E2M3: return &kE2M3;
    case Element::E3M2: return &kE3M2;
    case Element::E2M1: return &kE2M1;
    default: return nullptr;
  }
}

std::span<const float, 16> code_values(Element element) { return element == Element::Nf4 ? kNf4 : kFp4; }

std::size_t ScaledFormat::scale_bytes() const {
  switch (scale) {
    case ScaleType::F32: return 4;
    case ScaleType::BF16:
    case ScaleType::F16: return 2;
    default: return 1;
  }
}

std::size_t ScaledFormat::zero_bytes() const {
  if (!asymmetric()) return 0;
  return mapping == Mapping::Tinygemm ? scale_bytes() : 1;
}

std::size_t ScaledFormat::code_bytes(std::int64_t elements) const {
  if (bits() == 8) return static_cast<std::size_t>(elements);
  if (group == kChunk / 2) return static_cast<std::size_t>(elements * bits() / 8);
  return static_cast<std::size_t>((elements + kChunk - 1) / kChunk * kChunk / 8 * bits());
}

std::size_t ScaledFormat::header_bytes(std::int64_t groups) const {
  if (mapping == Mapping::Nv || mapping == Mapping::NvCt) return sizeof(float);
  if (mapping != Mapping::AbsmaxDouble) return 0;
  return static_cast<std::size_t>(1 + nested_blocks(groups)) * sizeof(float) + sizeof(std::uint16_t);
}

std::int64_t ScaledFormat::header_params(std::int64_t groups) const {
  if (mapping == Mapping::Nv || mapping == Mapping::NvCt) return 1;
  return mapping == Mapping::AbsmaxDouble ? 2 + nested_blocks(groups) : 0;
}

std::optional<ScaledFormat> parse_int_format(std::string_view name) {
  static constexpr std::pair<std::string_view, Element> kElements[] = {{"int2-", Element::Int2}, {"int3-", Element::Int3},
                                                                       {"int4-", Element::Int4}, {"int5-", Element::Int5},
                                                                       {"int6-", Element::Int6}, {"int8-", Element::Int8}};
  static constexpr std::pair<std::string_view, Mapping> kRules[] = {
      {"sym", Mapping::Sym},           {"symeps", Mapping::SymEps},     {"symfull", Mapping::SymFull},
      {"mslk", Mapping::MslkSym},      {"ctsym", Mapping::CtSym},       {"asym", Mapping::Asym},
      {"ctasym", Mapping::CtAsym},     {"tinygemm", Mapping::Tinygemm}, {"static-sym", Mapping::CtSym},
      {"static-asym", Mapping::CtAsym}};
  ScaledFormat format{std::string(name), Element::Int2, Mapping::Sym};
  std::string_view rest = name;
  if (!without(rest, "-bf16").empty())
    format.scale = ScaleType::BF16;
  else if (!without(rest, "-f16").empty())
    format.scale = ScaleType::F16;
  for (const auto& [suffix, group] :
       {std::pair{"-g32", 32}, std::pair{"-g64", 64}, std::pair{"-g128", 128}, std::pair{"-g256", 256}})
    if (!without(rest, suffix).empty()) {
      format.group = group;
      break;
    }
  for (const auto& [prefix, element] : kElements)
    if (rest.starts_with(prefix))
      for (const auto& [rule, mapping] : kRules)
        if (rest.substr(prefix.size()) == rule) {
          format.element = element;
          format.mapping = mapping;
          format.fixed = rule.starts_with("static");
          if (format.fixed && (element != Element::Int8 || format.group != 0 || format.scale != ScaleType::F32))
            return std::nullopt;
          return format;
        }
  return std::nullopt;
}

std::span<const ScaledFormat> float_formats() {
  static const std::vector<ScaledFormat> all = make_float_formats();
  return all;
}

}  // namespace temper::quant
