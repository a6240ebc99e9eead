#include "train/optimizer.h"

#include <cmath>
#include <cstring>

#include "ops/ops.h"

namespace temper::train {

Optimizer::Optimizer(const recipe::OptimOptions& options, double max_grad_norm, const TensorView& parameters)
    : options_(options),
      max_grad_norm_(max_grad_norm),
      parameters_(parameters),
      m_(DType::F32, parameters.shape, true),
      v_(DType::F32, parameters.shape, true) {}

double Optimizer::norm(const ExecContext& ctx, const TensorView& gradients) {
  return std::sqrt(ops::sum_of_squares(ctx, gradients));
}

void Optimizer::step(const ExecContext& ctx, const TensorView& gradients, double grad_norm, double lr) {
  ++steps_;
  ops::AdamW adamw;
  adamw.lr = static_cast<float>(lr);
  adamw.beta1 = static_cast<float>(options_.beta1);
  adamw.beta2 = static_cast<float>(options_.beta2);
  adamw.eps = static_cast<float>(options_.eps);
  adamw.weight_decay = static_cast<float>(options_.weight_decay);
  adamw.step = steps_;
  if (max_grad_norm_ > 0 && grad_norm > max_grad_norm_) adamw.grad_scale = static_cast<float>(max_grad_norm_ / grad_norm);
  ops::adamw(ctx, parameters_, gradients, m_, v_, adamw);
}

void Optimizer::restore(std::int64_t steps, const TensorView& first_moment, const TensorView& second_moment) {
  for (const TensorView& moment : {first_moment, second_moment})
    if (moment.dtype != DType::F32 || moment.shape.numel() != parameters_.shape.numel())
      throw LogicError("moments of {} {} for {} parameters", dtype_name(moment.dtype), moment.shape.str(),
                       parameters_.shape.str());
  std::memcpy(m_.view().data, first_moment.data, first_moment.bytes());
  std::memcpy(v_.view().data, second_moment.data, second_moment.bytes());
  steps_ = steps;
}

}  // namespace temper::train
