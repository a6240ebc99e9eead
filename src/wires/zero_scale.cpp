#include "wires/zero_scale.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "wires/packing.h"

namespace temper::wires {

using quant::ScaledCodec;
using quant::ScaleType;

std::int64_t group_elements(const Matrix& matrix) {
  return matrix.codec->group() == 0 ? matrix.cols : matrix.codec->group();
}
std::int64_t groups_of(const Matrix& matrix) { return matrix.cols / group_elements(matrix); }

ZeroScale to_zero_scale(const Matrix& matrix, std::span<const std::byte> encoded) {
  const ScaledCodec& codec = *quant::as_scaled(matrix.codec);
  const int bits = codec.format().bits(), offset = 1 << (bits - 1);
  const std::int64_t groups = groups_of(matrix);
  ScaledCodec::Parts parts = codec.take_apart(encoded, matrix.rows, matrix.cols);
  ZeroScale out;
  out.codes = transposed(parts.codes, matrix.rows, matrix.cols);
  add_to_codes(out.codes, offset, bits);
  out.scales = transposed(parts.scales, matrix.rows, groups, 2);
  if (codec.format().asymmetric()) {
    out.zeros = transposed(values_of<std::uint8_t>(parts.zeros), matrix.rows, groups);
    add_to_codes(out.zeros, offset, bits);
  } else {
    out.zeros.assign(static_cast<std::size_t>(matrix.rows * groups), static_cast<std::uint8_t>(offset));
  }
  return out;
}

std::vector<std::byte> from_zero_scale(const Matrix& matrix, const ZeroScale& parts) {
  const ScaledCodec& codec = *quant::as_scaled(matrix.codec);
  const int bits = codec.format().bits(), offset = 1 << (bits - 1);
  const std::int64_t groups = groups_of(matrix);
  ScaledCodec::Parts out;
  out.codes = transposed(parts.codes, matrix.cols, matrix.rows);
  add_to_codes(out.codes, -offset, bits);
  out.scales = transposed(parts.scales, groups, matrix.rows, 2);
  if (codec.format().asymmetric()) {
    std::vector<std::uint8_t> zeros = transposed(parts.zeros, groups, matrix.rows);
    for (std::uint8_t& zero : zeros) zero = static_cast<std::uint8_t>(zero - offset);
    out.zeros = bytes_of<std::uint8_t>(zeros);
  }
  return codec.put_together(out, matrix.rows, matrix.cols);
}

std::string zero_scale_refusal(const Matrix& matrix, std::string_view wire, std::span<const int> bits) {
  if (!matrix.codec) return "";
  if (matrix.role != quant::Role::Linear) return fmt::format("{} holds linears; embedding and head stay in 16 bits", wire);
  const auto* codec = quant::as_scaled(matrix.codec);
  if (!codec || !is_affine(codec->format()) || std::ranges::find(bits, codec->format().bits()) == bits.end())
    return fmt::format("{} is no format of {}; those are integers of {} bits, zero points integers or none",
                       matrix.codec->name(), wire, fmt::join(bits, ", "));
  if (codec->format().scale != ScaleType::F16)
    return fmt::format(
        "{} stores scales in f16; take {}", wire,
        integer_codec(codec->format().bits(), !codec->format().asymmetric(), codec->group(), ScaleType::F16)->name());
  if (matrix.input) return fmt::format("{} rounds no activations", wire);
  return "";
}

const ScaledCodec* common_codec(std::span<const Matrix> matrices, std::string_view wire) {
  const ScaledCodec* common = nullptr;
  for (const Matrix& matrix : matrices) {
    if (!matrix.codec) continue;
    if (common && matrix.codec != common)
      throw Unsupported("{}: all linears have one format; found {} and {}", wire, common->name(), matrix.codec->name());
    common = quant::as_scaled(matrix.codec);
  }
  return common;
}

const quant::Codec* zero_scale_codec(const Matrix& matrix, std::int64_t bits, std::int64_t group,
                                     std::span<const std::uint8_t> zeros) {
  const bool symmetric = std::ranges::all_of(zeros, [&](std::uint8_t zero) { return zero == 1 << (bits - 1); });
  const quant::Codec* codec = integer_codec(bits, symmetric, std::max<std::int64_t>(group, 0), ScaleType::F16);
  if (!codec && group == matrix.cols) codec = integer_codec(bits, symmetric, 0, ScaleType::F16);
  if (!codec)
    throw Unsupported("{}: integers of {} bits in groups of {}: no format of temper's is that", matrix.name, bits, group);
  require_fit(matrix, *codec);
  return codec;
}

}  // namespace temper::wires
