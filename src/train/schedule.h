// The learning rate as a function of the optimizer step.
#pragma once

#include <cstdint>

#include "recipe/recipe.h"

namespace temper::train {

/// lr(step) = peak · warm-up · shape, a pure function, so that a resumed run needs no state for it.
///   warm-up   min(1, (step + 1) / warmup_steps), and 1 without warm-up
///   shape     cosine: ½ + ½ cos(π step / steps); linear: 1 − step / steps; constant: 1; all over the whole run, warm-up
///   included.
///             Cosine and linear are lifted to end at min_lr_ratio: ratio + (1 − ratio) · shape
class LrSchedule {
 public:
  /// `steps` is the length of the run, > 0.
  LrSchedule(const recipe::OptimOptions& options, std::int64_t steps);

  /// Learning rate of optimizer step `step`, counted from 0.
  double lr(std::int64_t step) const;

 private:
  recipe::OptimOptions options_;
  std::int64_t steps_;
};

}  // namespace temper::train
