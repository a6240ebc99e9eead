#include "quant/checks.h"

namespace temper::quant {

void check_cols(const Codec& codec, std::int64_t cols) {
  if (!codec.fits(cols))
    throw LogicError("{}: rows of {} elements are no multiple of {}", codec.name(), cols, codec.group());
}

void check_size(const Codec& codec, const char* what, std::size_t expected, std::size_t found) {
  if (expected != found) throw LogicError("{}: {}: expected {}, found {}", codec.name(), what, expected, found);
}

void check_matrix(const Codec& codec, const TensorView& matrix, std::size_t bytes) {
  if (matrix.dtype != DType::F32 && matrix.dtype != DType::BF16)
    throw LogicError("{}: expected F32 or BF16 values, found {}", codec.name(), dtype_name(matrix.dtype));
  if (matrix.shape.rank() < 1 || matrix.shape.rank() > 2)
    throw LogicError("{}: expected a matrix, found shape {}", codec.name(), matrix.shape.str());
  check_size(codec, "encoded bytes", static_cast<std::size_t>(matrix.rows()) * codec.row_bytes(matrix.cols()), bytes);
}

void encode_matrix(const Codec& codec, const RowKernels& kernels, std::int64_t group, const TensorView& values,
                   std::span<std::byte> encoded) {
  check_matrix(codec, values, encoded.size());
  const std::int64_t cols = values.cols();
  const std::size_t bytes = codec.row_bytes(cols);
  auto* out = reinterpret_cast<unsigned char*>(encoded.data());
  for (std::int64_t r = 0; r < values.rows(); ++r, out += bytes) {
    const std::int64_t offset = r * values.row_stride;
    if (values.dtype == DType::F32)
      kernels.encode_f32(values.as<const float>() + offset, cols, group, out);
    else
      kernels.encode_bf16(&values.as<const bf16>()[offset].bits, cols, group, out);
  }
}

void decode_matrix(const Codec& codec, const RowKernels& kernels, std::int64_t group, std::span<const std::byte> encoded,
                   const TensorView& out) {
  check_matrix(codec, out, encoded.size());
  const std::int64_t cols = out.cols();
  const std::size_t bytes = codec.row_bytes(cols);
  const auto* in = reinterpret_cast<const unsigned char*>(encoded.data());
  for (std::int64_t r = 0; r < out.rows(); ++r, in += bytes) {
    const std::int64_t offset = r * out.row_stride;
    if (out.dtype == DType::F32)
      kernels.decode_f32(in, cols, group, out.as<float>() + offset);
    else
      kernels.decode_bf16(in, cols, group, &out.as<bf16>()[offset].bits);
  }
}

CodeStats count_matrix(const Codec& codec, const RowKernels& kernels, std::int64_t group, std::span<const std::byte> encoded,
                       std::span<const std::byte> earlier, std::int64_t rows, std::int64_t cols) {
  const std::size_t bytes = codec.row_bytes(cols);
  check_size(codec, "encoded bytes", static_cast<std::size_t>(rows) * bytes, encoded.size());
  if (!earlier.empty()) check_size(codec, "earlier encoded bytes", encoded.size(), earlier.size());
  const auto* now = reinterpret_cast<const unsigned char*>(encoded.data());
  const auto* before = earlier.empty() ? now : reinterpret_cast<const unsigned char*>(earlier.data());
  CodeStats sum{rows * cols, 0, 0};
  for (std::int64_t r = 0; r < rows; ++r, now += bytes, before += bytes) {
    const CodeCounts counts = kernels.count(now, before, cols, group);
    sum.changed += counts.changed;
    sum.saturated += counts.saturated;
  }
  return sum;
}

void widen_row(const TensorView& values, std::int64_t r, std::span<float> row) {
  const std::int64_t offset = r * values.row_stride;
  for (std::size_t i = 0; i < row.size(); ++i)
    row[i] = values.dtype == DType::F32 ? values.as<const float>()[offset + static_cast<std::int64_t>(i)]
                                        : to_float(values.as<const bf16>()[offset + static_cast<std::int64_t>(i)]);
}

void refuse_to_write(const Codec& codec) { throw Unsupported("{}: this format is only read, not written", codec.name()); }

}  // namespace temper::quant
