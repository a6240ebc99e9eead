// The learning rate against values worked out by hand and against a plain formula.
#include "train/schedule.h"

#include <gtest/gtest.h>

#include <cmath>

namespace temper::train {
namespace {

recipe::OptimOptions options(recipe::Schedule schedule, std::int64_t warmup, double min_ratio = 0) {
  recipe::OptimOptions o;
  o.lr = 4e-4;
  o.schedule = schedule;
  o.warmup_steps = warmup;
  o.min_lr_ratio = min_ratio;
  return o;
}

TEST(Schedule, CosineIsThatOfTheReferenceRun) {
  const LrSchedule schedule(options(recipe::Schedule::Cosine, 10), 60);
  for (std::int64_t step = 0; step < 60; ++step) {
    const double s = static_cast<double>(step);
    const double expected = 4e-4 * std::min(1.0, (s + 1) / 10) * (0.5 + 0.5 * std::cos(3.14159265358979323846 * s / 60));
    EXPECT_NEAR(schedule.lr(step), expected, 4e-4 * 1e-15) << step;
  }
  EXPECT_DOUBLE_EQ(schedule.lr(0), 4e-5);     // a tenth, at the cosine's top
  EXPECT_NEAR(schedule.lr(30), 2e-4, 1e-18);  // half way down
  EXPECT_NEAR(schedule.lr(20), 3e-4, 1e-18);  // ½ + ½ cos 60° = ¾
}

TEST(Schedule, LinearAndConstant) {
  const LrSchedule linear(options(recipe::Schedule::Linear, 0), 10);
  EXPECT_DOUBLE_EQ(linear.lr(0), 4e-4);
  EXPECT_DOUBLE_EQ(linear.lr(5), 2e-4);
  EXPECT_NEAR(linear.lr(9), 4e-5, 1e-18);
  const LrSchedule constant(options(recipe::Schedule::Constant, 4, 0.5), 10);
  EXPECT_DOUBLE_EQ(constant.lr(0), 1e-4);
  EXPECT_DOUBLE_EQ(constant.lr(3), 4e-4);
  EXPECT_DOUBLE_EQ(constant.lr(9), 4e-4);
}

TEST(Schedule, EndsAtTheMinimum) {
  const LrSchedule cosine(options(recipe::Schedule::Cosine, 0, 0.25), 8);
  EXPECT_DOUBLE_EQ(cosine.lr(0), 4e-4);
  EXPECT_NEAR(cosine.lr(4), 4e-4 * 0.625, 1e-18);
  EXPECT_NEAR(cosine.lr(8), 1e-4, 1e-18);
  const LrSchedule linear(options(recipe::Schedule::Linear, 0, 0.25), 8);
  EXPECT_NEAR(linear.lr(8), 1e-4, 1e-18);
}

}  // namespace
}  // namespace temper::train
