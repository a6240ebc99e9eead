// AdamW over the adapters' flat array of parameters, with clipping by global norm.
#pragma once

#include <cstdint>

#include "recipe/recipe.h"
#include "tensor/exec_context.h"
#include "tensor/tensor.h"

namespace temper::train {

/// Moments are F32, in the order of the parameters, zero at first.
class Optimizer {
 public:
  /// `parameters` F32 [n], updated in place; the view must outlive this. `max_grad_norm` 0: no clipping.
  Optimizer(const recipe::OptimOptions& options, double max_grad_norm, const TensorView& parameters);

  /// √Σ g² of `gradients`, in double, in an order that depends only on the size. NaN or infinite if any gradient is.
  static double norm(const ExecContext& ctx, const TensorView& gradients);

  /// One step of AdamW (Loshchilov & Hutter 2019) with bias correction. `grad_norm` is norm(gradients), finite; gradients
  /// are scaled by max_grad_norm / grad_norm where that is less than 1.
  void step(const ExecContext& ctx, const TensorView& gradients, double grad_norm, double lr);

  std::int64_t steps() const { return steps_; }  ///< Steps done.
  TensorView first_moment() const { return m_; }
  TensorView second_moment() const { return v_; }
  /// Continues after `steps` steps with these moments, F32 [n] each.
  void restore(std::int64_t steps, const TensorView& first_moment, const TensorView& second_moment);

 private:
  recipe::OptimOptions options_;
  double max_grad_norm_;
  TensorView parameters_;
  Tensor m_, v_;
  std::int64_t steps_ = 0;
};

}  // namespace temper::train
