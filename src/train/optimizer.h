// AdamW over everything that a run trains, with clipping by global norm.
#pragma once

#include <cstdint>
#include <vector>

#include "model/trainables.h"
#include "recipe/recipe.h"
#include "tensor/exec_context.h"
#include "tensor/tensor.h"
#include "train/state_tensors.h"

namespace temper::train {

/// Moments are F32, in the order of the parameters, zero at first.
class Optimizer {
 public:
  /// Updates the masters of `trained` in place, whose memory it shares. `max_grad_norm` 0: no clipping.
  Optimizer(const recipe::OptimOptions& options, double max_grad_norm, const model::Trainables& trained);

  /// One step of AdamW (Loshchilov & Hutter 2019) with bias correction. `grad_norm` is that of all gradients
  /// (Trainables::gradient_norm), finite; gradients are scaled by max_grad_norm / grad_norm where that is less than 1. A
  /// segment's learning rate is lr times its factor.
  void step(const ExecContext& ctx, double grad_norm, double lr);

  std::int64_t steps() const { return steps_; }  ///< Steps done.
  /// Its state but for steps(), to be written and read back by checkpoints: "ARRAY.exp_avg", "ARRAY.exp_avg_sq" of every
  /// array, as large as its parameters.
  std::vector<StateTensor> state() const;
  /// state() has been restored as it was after `steps` steps.
  void restored(std::int64_t steps) { steps_ = steps; }

 private:
  /// Segments next to each other that follow the same rules.
  struct Piece {
    TensorView parameters, gradients, first, second;  // F32 [n]
    float lr_factor, weight_decay;
  };
  void add(const model::ParameterArray& array);

  recipe::OptimOptions options_;
  double max_grad_norm_;
  std::vector<model::ParameterArray> arrays_;
  std::vector<Tensor> first_, second_;  // by array
  std::vector<Piece> pieces_;
  std::int64_t steps_ = 0;
};

}  // namespace temper::train
