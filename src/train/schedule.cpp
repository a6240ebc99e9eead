#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace temper::train {

LrSchedule::LrSchedule(const recipe::OptimOptions& options, std::int64_t steps) : options_(options), steps_(steps) {
  if (steps <= 0) throw LogicError("a schedule over {} steps", steps);
}

double LrSchedule::lr(std::int64_t step) const {
  const double progress = static_cast<double>(step) / static_cast<double>(steps_);
  double warm_up = 1.0;
  if (options_.warmup_steps > 0)
    warm_up = std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(options_.warmup_steps));
  double shape = 1.0;
  switch (options_.schedule) {
    case recipe::Schedule::Cosine: shape = 0.5 + 0.5 * std::cos(std::numbers::pi * progress); break;
    case recipe::Schedule::Linear: shape = 1.0 - progress; break;
    case recipe::Schedule::Constant: return options_.lr * warm_up;
  }
  return options_.lr * warm_up * (options_.min_lr_ratio + (1.0 - options_.min_lr_ratio) * shape);
}

}  // namespace temper::train
