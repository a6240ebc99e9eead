// Checks of sizes that every codec's entry points share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "quant/codec.h"

namespace temper::quant {

/// Throws LogicError, naming the codec, if `cols` is no whole number of blocks.
void check_cols(const Codec& codec, std::int64_t cols);
/// Throws LogicError, naming the codec and the operation, unless `found` equals `expected`.
void check_size(const Codec& codec, const char* what, std::size_t expected, std::size_t found);
/// Checks that `matrix` is F32 or BF16 of rank 1 or 2 and that `bytes` is the size of its encoding.
void check_matrix(const Codec& codec, const TensorView& matrix, std::size_t bytes);

/// Throws Unsupported: the codec only reads.
[[noreturn]] void refuse_to_write(const Codec& codec);

}  // namespace temper::quant
