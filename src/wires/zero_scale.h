// What the layouts of GPTQ and AWQ have in common: unsigned codes [K, N] and zero points, scales in f16 by groups of inputs.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "wires/layout.h"

namespace temper::wires {

/// What a matrix holds, as those layouts see it: w = (code - zero) · scale, everything transposed.
struct ZeroScale {
  std::vector<std::uint8_t> codes;  ///< [K, N], 0 … 2^bits - 1.
  std::vector<std::uint8_t> zeros;  ///< [K/group, N], the same range; of symmetric formats 2^(bits-1).
  std::vector<std::byte> scales;    ///< [K/group, N], f16.
};

ZeroScale to_zero_scale(const Matrix& matrix, std::span<const std::byte> encoded);
/// The inverse. Zero points of a symmetric codec are not looked at.
std::vector<std::byte> from_zero_scale(const Matrix& matrix, const ZeroScale& parts);

/// Why the matrix cannot be held in integers of those bits with f16 scales; empty if it can.
std::string zero_scale_refusal(const Matrix& matrix, std::string_view wire, std::span<const int> bits);

/// Elements that share a scale, the whole row's being its length.
std::int64_t group_elements(const Matrix& matrix);
std::int64_t groups_of(const Matrix& matrix);

/// The one codec of a model's quantized linears, or null if there is none; throws Unsupported naming two if they differ.
const quant::ScaledCodec* common_codec(std::span<const Matrix> matrices, std::string_view wire);

/// The codec of integers of those bits and groups (-1: whole rows), symmetric if every zero point is 2^(bits-1). Throws
/// Unsupported where temper has none, or its groups do not divide the rows.
const quant::Codec* zero_scale_codec(const Matrix& matrix, std::int64_t bits, std::int64_t group,
                                     std::span<const std::uint8_t> zeros);

}  // namespace temper::wires
