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

void refuse_to_write(const Codec& codec) { throw Unsupported("{}: this format is only read, not written", codec.name()); }

}  // namespace temper::quant
