// bitsandbytes' second quantization of absmaxes (functional.quantize_blockwise, blocks of 256, signed dynamic map).
#pragma once

#include <cstdint>
#include <span>

#include "quant/dynamic_map.h"

namespace temper::quant {

inline constexpr std::int64_t kNestedBlock = 256;

/// Blocks of 256 that `groups` consecutive absmaxes of a matrix can touch, wherever they start.
constexpr std::int64_t nested_blocks(std::int64_t groups) { return (groups + kNestedBlock - 2) / kNestedBlock + 1; }

}  // namespace temper::quant
