#include "ptq/input_moments.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/parallel.h"
#include "ops/ops.h"

namespace temper::ptq {

void InputMoments::input(const ExecContext& ctx, int, model::LinearInput which, const TensorView& x) {
  if (which == model::LinearInput::Head) return;
  Input& seen = inputs_[static_cast<std::size_t>(which)];
  const std::int64_t cols = x.cols();
  if (!seen.hessian) {
    seen.hessian = Tensor(DType::F32, {cols, cols}, /*zero=*/true);
    seen.largest.assign(static_cast<std::size_t>(cols), 0.0f);
  }
  ops::matmul(ctx, x, x, seen.hessian, {.transpose_a = true, .accumulate = true});
  const auto gather = [&](const auto* values) {
    parallel_for(cols, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = 0; r < x.rows(); ++r)
        for (std::int64_t c = begin; c < end; ++c) {
          float& largest = seen.largest[static_cast<std::size_t>(c)];
          largest = std::max(largest, std::fabs(to_float(values[r * x.row_stride + c])));
        }
    });
  };
  x.dtype == DType::BF16 ? gather(x.as<const bf16>()) : gather(x.as<const float>());
}

void InputMoments::clear() { inputs_ = {}; }

const InputMoments::Input& InputMoments::seen(model::LinearInput which) const {
  const Input& input = inputs_[static_cast<std::size_t>(which)];
  if (!input.hessian) throw LogicError("no input of linear {} was seen", static_cast<int>(which));
  return input;
}

TensorView InputMoments::hessian(model::LinearInput which) const { return seen(which).hessian; }
const std::vector<float>& InputMoments::largest(model::LinearInput which) const { return seen(which).largest; }

}  // namespace temper::ptq
