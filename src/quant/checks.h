// What the entry points of codecs share: checks of sizes, rows through kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "quant/codec.h"
#include "quant/row_kernels.h"

namespace temper::quant {

/// Throws LogicError, naming the codec, if `cols` is no whole number of blocks.
void check_cols(const Codec& codec, std::int64_t cols);
/// Throws LogicError, naming the codec and the operation, unless `found` equals `expected`.
void check_size(const Codec& codec, const char* what, std::size_t expected, std::size_t found);
/// Checks that `matrix` is F32 or BF16 of rank 1 or 2 and that `bytes` is the size of its encoding.
void check_matrix(const Codec& codec, const TensorView& matrix, std::size_t bytes);

/// encode_rows, decode_rows and stats by kernels, after the checks; `group` is what they take.
void encode_matrix(const Codec& codec, const RowKernels& kernels, std::int64_t group, const TensorView& values,
                   std::span<std::byte> encoded);
void decode_matrix(const Codec& codec, const RowKernels& kernels, std::int64_t group, std::span<const std::byte> encoded,
                   const TensorView& out);
CodeStats count_matrix(const Codec& codec, const RowKernels& kernels, std::int64_t group, std::span<const std::byte> encoded,
                       std::span<const std::byte> earlier, std::int64_t rows, std::int64_t cols);

/// Row `r` of an F32 or BF16 matrix as floats.
void widen_row(const TensorView& values, std::int64_t r, std::span<float> row);

/// Throws Unsupported: the codec only reads.
[[noreturn]] void refuse_to_write(const Codec& codec);

}  // namespace temper::quant
