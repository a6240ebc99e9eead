// AdamW or Lion over everything that a run trains, with clipping by global norm.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/trainables.h"
#include "recipe/recipe.h"
#include "tensor/exec_context.h"
#include "tensor/tensor.h"
#include "train/optimizer_state.h"
#include "train/state_tensors.h"

namespace temper::train {

/// States are zero at first, in F32 or narrower as options.state says (train/optimizer_state.h).
class Optimizer {
 public:
  /// Updates the masters of `trained` in place, whose memory it shares. `max_grad_norm` 0: no clipping. `seed`: of
  /// stochastic rounding.
  Optimizer(const recipe::OptimOptions& options, double max_grad_norm, const model::Trainables& trained,
            std::uint64_t seed = 0);

  /// One step of AdamW (Loshchilov & Hutter 2019) with bias correction, or of Lion (Chen et al. 2023). `grad_norm` is that
  /// of all gradients (Trainables::gradient_norm), finite; gradients are scaled by max_grad_norm / grad_norm where that is
  /// less than 1. A segment's learning rate is lr times its factor.
  void step(const ExecContext& ctx, double grad_norm, double lr);

  std::int64_t steps() const { return steps_; }  ///< Steps done.
  /// Its state but for steps(), to be written and read back by checkpoints: "ARRAY.exp_avg" and, of AdamW,
  /// "ARRAY.exp_avg_sq" of every array, as MomentArray lays them out.
  std::vector<StateTensor> state() const;
  /// state() has been restored as it was after `steps` steps.
  void restored(std::int64_t steps) { steps_ = steps; }
  std::string description() const;  ///< "adamw, states in 8bit: 1.20 MB"

 private:
  /// Parameters next to each other that follow the same rules.
  struct Piece {
    TensorView parameters, gradients;  // F32 [n]
    ops::OptimizerState first, second;
    float lr_factor, weight_decay;
  };
  void add(const model::ParameterArray& array);
  std::vector<StateRange> ranges_of(const model::ParameterArray& array) const;

  recipe::OptimOptions options_;
  double max_grad_norm_;
  std::uint64_t seed_;
  std::vector<model::ParameterArray> arrays_;  // keep the memory
  std::vector<MomentArray> moments_;
  std::vector<Piece> pieces_;
  std::int64_t steps_ = 0;
};

}  // namespace temper::train
