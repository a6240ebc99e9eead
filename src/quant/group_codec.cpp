#include "quant/group_codec.h"

#include "quant/checks.h"

namespace temper::quant {

std::size_t GroupCodec::row_bytes(std::int64_t cols) const {
  check_cols(*this, cols);
  const std::int64_t n = group_of(cols);
  return static_cast<std::size_t>(cols / n) * group_bytes(n);
}

std::int64_t GroupCodec::params_per_row(std::int64_t cols) const {
  check_cols(*this, cols);
  return cols / group_of(cols);
}

void GroupCodec::check_row(std::size_t cols, std::size_t params, std::size_t encoded) const {
  const auto signed_cols = static_cast<std::int64_t>(cols);
  check_size(*this, "parameters of a row", static_cast<std::size_t>(params_per_row(signed_cols)), params);
  check_size(*this, "bytes of a row", row_bytes(signed_cols), encoded);
}

void GroupCodec::encode_rows(const TensorView& values, std::span<std::byte> encoded) const {
  encode_matrix(*this, kernels_.in_use(), group_of(values.cols()), values, encoded);
}

void GroupCodec::decode_rows(std::span<const std::byte> encoded, const TensorView& out) const {
  decode_matrix(*this, kernels_.in_use(), group_of(out.cols()), encoded, out);
}

CodeStats GroupCodec::stats(std::span<const std::byte> encoded, std::span<const std::byte> earlier, std::int64_t rows,
                            std::int64_t cols) const {
  return count_matrix(*this, kernels_.in_use(), group_of(cols), encoded, earlier, rows, cols);
}

}  // namespace temper::quant
