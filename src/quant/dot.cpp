// Products of a few rows of activations with encoded weights.
#include <vector>

#include "quant/checks.h"
#include "quant/codec.h"

namespace temper::quant {

void Codec::dot_rows(std::span<const std::byte> encoded, const TensorView& x, const TensorView& y, bool accumulate) const {
  const std::int64_t rows = y.cols(), cols = x.cols();
  check_size(*this, "encoded bytes", static_cast<std::size_t>(rows) * row_bytes(cols), encoded.size());
  std::vector<float> row(static_cast<std::size_t>(cols));
  for (std::int64_t n = 0; n < rows; ++n) {
    decode_rows(encoded.subspan(static_cast<std::size_t>(n) * row_bytes(cols), row_bytes(cols)),
                TensorView(row.data(), DType::F32, Shape{1, cols}));
    for (std::int64_t m = 0; m < x.rows(); ++m) {
      float sum = 0;
      for (std::int64_t k = 0; k < cols; ++k) {
        const float w = row[static_cast<std::size_t>(k)];
        if (x.dtype == DType::BF16)
          sum += to_float(to_bf16(w)) * to_float(x.as<bf16>()[m * x.row_stride + k]);
        else
          sum += w * x.as<float>()[m * x.row_stride + k];
      }
      const std::int64_t at = m * y.row_stride + n;
      if (y.dtype == DType::BF16)
        y.as<bf16>()[at] = to_bf16(sum);
      else
        y.as<float>()[at] = accumulate ? y.as<float>()[at] + sum : sum;
    }
  }
}

}  // namespace temper::quant
