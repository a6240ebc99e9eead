// bitsandbytes' second quantization of absmaxes (functional.quantize_blockwise, blocks of 256, signed dynamic map).
#pragma once

#include <cstdint>
#include <span>

namespace temper::quant {

inline constexpr std::int64_t kNestedBlock = 256;

/// Blocks of 256 that `groups` consecutive absmaxes of a matrix can touch, wherever they start.
constexpr std::int64_t nested_blocks(std::int64_t groups) { return (groups + kNestedBlock - 2) / kNestedBlock + 1; }

/// The 256 values of the signed dynamic map, ascending.
std::span<const float, 256> dynamic_map();
/// The nearest value's index, the lower of two as near; |x| <= 1 (others saturate, NaN gives 0).
std::uint8_t dynamic_code(float x);

}  // namespace temper::quant
