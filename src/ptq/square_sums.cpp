#include "ptq/square_sums.h"

#include "base/error.h"
#include "ops/ops.h"

namespace temper::ptq {

void SquareSums::input(const ExecContext& ctx, int layer, model::LinearInput which, const TensorView& x) {
  std::vector<double>& sums = sums_[slot(layer, which)];
  sums.resize(static_cast<std::size_t>(x.cols()));
  Tensor values(DType::F32, x.shape);
  ops::convert(ctx, x, values);
  const std::span<const float> all = values->span<const float>();
  for (std::size_t i = 0; i < all.size(); i += sums.size())
    for (std::size_t c = 0; c < sums.size(); ++c)
      sums[c] += static_cast<double>(all[i + c]) * static_cast<double>(all[i + c]);
}

const std::vector<double>& SquareSums::of(const model::TensorTable& table, std::size_t tensor) const {
  const model::TensorInfo& info = table[tensor];
  if (info.role != quant::Role::Linear) return sums_.back();
  for (const model::Linear linear : model::kLinears)
    if (table.linear(info.layer, linear) == tensor) return sums_[slot(info.layer, model::input_of(linear))];
  throw LogicError("{} is no projection", info.hf_name);
}

std::size_t SquareSums::slot(int layer, model::LinearInput which) const {
  if (which == model::LinearInput::Head) return sums_.size() - 1;
  return static_cast<std::size_t>(layer * model::kBlockInputs + static_cast<int>(which));
}

}  // namespace temper::ptq
