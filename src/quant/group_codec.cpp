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
  check_matrix(*this, values, encoded.size());
  const std::int64_t cols = values.cols(), group = group_of(cols);
  const std::size_t bytes = row_bytes(cols);
  const RowKernels& kernels = kernels_.in_use();
  auto* out = reinterpret_cast<unsigned char*>(encoded.data());
  for (std::int64_t r = 0; r < values.rows(); ++r, out += bytes) {
    const std::int64_t offset = r * values.row_stride;
    if (values.dtype == DType::F32)
      kernels.encode_f32(values.as<const float>() + offset, cols, group, out);
    else
      kernels.encode_bf16(&values.as<const bf16>()[offset].bits, cols, group, out);
  }
}

void GroupCodec::decode_rows(std::span<const std::byte> encoded, const TensorView& out) const {
  decode_matrix(*this, kernels_.in_use(), group_of(out.cols()), encoded, out);
}

CodeStats GroupCodec::stats(std::span<const std::byte> encoded, std::span<const std::byte> earlier, std::int64_t rows,
                            std::int64_t cols) const {
  const std::size_t bytes = row_bytes(cols);
  check_size(*this, "encoded bytes", static_cast<std::size_t>(rows) * bytes, encoded.size());
  if (!earlier.empty()) check_size(*this, "earlier encoded bytes", encoded.size(), earlier.size());
  const RowKernels& kernels = kernels_.in_use();
  const auto* now = reinterpret_cast<const unsigned char*>(encoded.data());
  const auto* before = earlier.empty() ? now : reinterpret_cast<const unsigned char*>(earlier.data());
  CodeStats sum{rows * cols, 0, 0};
  for (std::int64_t r = 0; r < rows; ++r, now += bytes, before += bytes) {
    const CodeCounts counts = kernels.count(now, before, cols, group_of(cols));
    sum.changed += counts.changed;
    sum.saturated += counts.saturated;
  }
  return sum;
}

}  // namespace temper::quant
