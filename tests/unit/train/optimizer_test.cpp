// AdamW against a twin in double, and clipping by global norm.
#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"
#include "ops/cpu/cpu_backend.h"

namespace temper::train {
namespace {

constexpr std::int64_t kSize = 1000;

struct Fixture {
  Arena arena{1 << 20};
  ExecContext ctx{&ops::cpu_backend(), &arena, DType::F32};
  model::ParameterArray array;
  model::Trainables trained;
  Rng rng{7};

  explicit Fixture(std::vector<model::Segment> segments = {{"a", {kSize}}}) : array("some", std::move(segments)) {
    trained.add(array);
    for (float& p : parameters()) p = rng.uniform() - 0.5f;
  }
  std::span<float> parameters() const { return array.parameters().span<float>(); }
  std::span<float> gradients() const { return array.gradients().span<float>(); }
  double norm() const { return trained.gradient_norm(ctx); }
  void new_gradients() {
    for (float& g : gradients()) g = 4.0f * rng.uniform() - 2.0f;
  }
};

/// AdamW as the paper writes it (algorithm 2), in double.
struct Twin {
  std::vector<double> p, m, v;
  explicit Twin(std::span<const float> start) : p(start.begin(), start.end()), m(p.size()), v(p.size()) {}

  void step(std::span<const float> g, const recipe::OptimOptions& o, double lr, double scale, int t) {
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double x = scale * static_cast<double>(g[i]);
      m[i] = o.beta1 * m[i] + (1 - o.beta1) * x;
      v[i] = o.beta2 * v[i] + (1 - o.beta2) * x * x;
      const double mhat = m[i] / (1 - std::pow(o.beta1, t)), vhat = v[i] / (1 - std::pow(o.beta2, t));
      p[i] -= lr * (mhat / (std::sqrt(vhat) + o.eps) + o.weight_decay * p[i]);
    }
  }
};

void compare_with_twin(double max_grad_norm, double weight_decay) {
  Fixture f;
  recipe::OptimOptions o;
  o.weight_decay = weight_decay;
  Optimizer optimizer(o, max_grad_norm, f.trained);
  Twin twin(f.parameters());
  constexpr int kSteps = 20;
  const double lr = 1e-2;
  for (int t = 1; t <= kSteps; ++t) {
    f.new_gradients();
    double squares = 0;
    for (const float g : f.gradients()) squares += static_cast<double>(g) * static_cast<double>(g);
    const double norm = f.norm();
    ASSERT_NEAR(norm, std::sqrt(squares), 1e-12 * norm);
    optimizer.step(f.ctx, norm, lr);
    twin.step(f.gradients(), o, lr, max_grad_norm > 0 ? std::min(1.0, max_grad_norm / norm) : 1.0, t);
  }
  EXPECT_EQ(optimizer.steps(), kSteps);
  // Each step rounds a parameter (|p| < 1) once to f32 (2⁻²⁴), and its update (|update| ≤ lr · 3) with a relative error of
  // less than 64 roundings: moments (whose hyper-parameters 0.9, 0.999 are f32 too, the latter leaving 1 − β₂ only 17 bits),
  // their quotient, the root.
  const double bound = kSteps * (0x1p-24 + 3 * lr * (64 * 0x1p-24 + 0x1p-17));
  for (std::size_t i = 0; i < kSize; ++i) ASSERT_NEAR(f.parameters()[i], twin.p[i], bound) << i;
}

TEST(Optimizer, EqualsTheDoubleTwin) { compare_with_twin(0, 0); }
TEST(Optimizer, DecaysWeightsApartFromTheGradient) { compare_with_twin(0, 0.1); }
TEST(Optimizer, ClipsByGlobalNorm) { compare_with_twin(1.0, 0); }
TEST(Optimizer, ALargeLimitClipsNothing) {
  Fixture a, b;
  Optimizer clipped({}, 1e6, a.trained), free({}, 0, b.trained);
  for (Fixture* f : {&a, &b}) f->new_gradients();
  clipped.step(a.ctx, a.norm(), 1e-3);
  free.step(b.ctx, b.norm(), 1e-3);
  for (std::size_t i = 0; i < kSize; ++i) ASSERT_EQ(a.parameters()[i], b.parameters()[i]);
}

TEST(Optimizer, NormOfANonFiniteGradientIsNotFinite) {
  Fixture f;
  f.new_gradients();
  f.gradients()[617] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(std::isfinite(f.norm()));
  f.gradients()[617] = -std::numeric_limits<float>::infinity();
  EXPECT_FALSE(std::isfinite(f.norm()));
}

struct Kind {
  recipe::OptimizerName name;
  recipe::StateDtype state;
  std::size_t bytes;  ///< Of the states of a segment of 5,000 parameters (20 blocks) and one of 100 (112 with its padding).
};

class Kinds : public ::testing::TestWithParam<Kind> {
 protected:
  const std::vector<model::Segment> segments_ = {{"large", {50, 100}}, {"small", {100}}};
  recipe::OptimOptions options() const {
    recipe::OptimOptions o;
    o.name = GetParam().name;
    o.state = GetParam().state;
    return o;
  }
};

TEST_P(Kinds, RestoredGoesOnBitForBit) {
  Fixture a(segments_), b(segments_);
  Optimizer whole(options(), 1.0, a.trained, 9), first(options(), 1.0, b.trained, 9), second(options(), 1.0, b.trained, 9);
  for (int t = 0; t < 6; ++t) {
    for (Fixture* f : {&a, &b}) f->new_gradients();
    if (t == 3) {
      restore_tensors(second.state(), first.state(), "here");
      second.restored(first.steps());
    }
    whole.step(a.ctx, a.norm(), 1e-3);
    (t < 3 ? first : second).step(b.ctx, b.norm(), 1e-3);
  }
  EXPECT_TRUE(std::ranges::equal(a.parameters(), b.parameters()));
}

TEST_P(Kinds, StatesTakeTheirBytes) {
  Fixture f(segments_);
  std::size_t bytes = 0;
  for (const StateTensor& state : Optimizer(options(), 1.0, f.trained).state()) bytes += state.tensor.bytes();
  EXPECT_EQ(bytes, GetParam().bytes);
}

/// Narrow states move parameters nearly as F32 ones do: over ten steps with steady gradients, which AdamW follows at the
/// learning rate and Lion too, all but a few by the same amount within a tenth.
TEST_P(Kinds, NarrowStatesFollowTheWideOnes) {
  Fixture a(segments_), b(segments_);
  const std::vector<float> start(a.parameters().begin(), a.parameters().end());
  recipe::OptimOptions wide = options();
  wide.state = recipe::StateDtype::F32;
  Optimizer narrow(options(), 0, a.trained), exact(wide, 0, b.trained);
  for (Fixture* f : {&a, &b}) f->new_gradients();
  for (int t = 0; t < 10; ++t) {
    narrow.step(a.ctx, a.norm(), 1e-3);
    exact.step(b.ctx, b.norm(), 1e-3);
  }
  double apart = 0, moved = 0;
  for (std::size_t i = 0; i < start.size(); ++i) {
    const double d = static_cast<double>(a.parameters()[i]) - static_cast<double>(b.parameters()[i]);
    const double m = static_cast<double>(b.parameters()[i]) - static_cast<double>(start[i]);
    apart += d * d, moved += m * m;
  }
  EXPECT_LT(std::sqrt(apart), 0.1 * std::sqrt(moved));
  EXPECT_GT(moved, 0);
}

constexpr std::size_t kArray = 5008 + 112;  // both segments on cache lines of their own
INSTANTIATE_TEST_SUITE_P(
    All, Kinds,
    ::testing::Values(Kind{recipe::OptimizerName::AdamW, recipe::StateDtype::F32, 2 * 4 * kArray},
                      Kind{recipe::OptimizerName::AdamW, recipe::StateDtype::Bf16, 2 * 2 * kArray},
                      Kind{recipe::OptimizerName::AdamW, recipe::StateDtype::Bits8, 2 * (20 * (256 + 4) + 4 * 112)},
                      Kind{recipe::OptimizerName::Lion, recipe::StateDtype::F32, 4 * kArray},
                      Kind{recipe::OptimizerName::Lion, recipe::StateDtype::Bits8, 20 * (256 + 4) + 4 * 112}));

/// A segment is stepped by its own rules, wherever it lies.
TEST(Optimizer, SegmentsHaveRulesOfTheirOwn) {
  recipe::OptimOptions o;
  o.weight_decay = 0.1;
  const std::vector<model::Segment> segments = {{"a", {40}}, {"b", {7, 3}, false}, {"c", {17}, true, 0.5f}, {"d", {9}}};
  Fixture f(segments);
  f.new_gradients();
  std::vector<std::vector<float>> expected;
  for (std::size_t i = 0; i < segments.size(); ++i) {
    recipe::OptimOptions own = o;
    if (!segments[i].weight_decay) own.weight_decay = 0;
    model::ParameterArray alone("alone", {{"x", segments[i].shape}});
    std::ranges::copy(f.array.parameter(i).span<float>(), alone.parameter(0).span<float>().begin());
    std::ranges::copy(f.array.gradient(i).span<float>(), alone.gradient(0).span<float>().begin());
    model::Trainables list;
    list.add(alone);
    Optimizer(own, 0, list).step(f.ctx, f.norm(), 1e-2 * static_cast<double>(segments[i].lr_factor));
    const auto stepped = alone.parameter(0).span<float>();
    expected.emplace_back(stepped.begin(), stepped.end());
  }
  Optimizer(o, 0, f.trained).step(f.ctx, f.norm(), 1e-2);
  for (std::size_t i = 0; i < segments.size(); ++i)
    EXPECT_TRUE(std::ranges::equal(f.array.parameter(i).span<float>(), expected[i])) << segments[i].name;
}

TEST(Optimizer, NamesTheFirstGradientThatIsNotFinite) {
  Fixture f({{"a", {40}}, {"b", {7, 3}}, {"c", {17}}});
  EXPECT_EQ(f.trained.first_non_finite(), "");
  f.array.gradient(2).span<float>()[0] = std::numeric_limits<float>::infinity();
  f.array.gradient(1).span<float>()[20] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(f.trained.first_non_finite(), "gradient of b (inf)");
}

TEST(StateTensors, OtherNamesShapesAndDtypesAreNoticed) {
  const Tensor a(DType::F32, {3}, true), longer(DType::F32, {4}, true), narrow(DType::BF16, {3}, true);
  const std::vector<StateTensor> run = {{"x", a}};
  EXPECT_NO_THROW(restore_tensors(run, run, "here"));
  EXPECT_THROW(restore_tensors(run, {}, "here"), BadFile);
  EXPECT_THROW(restore_tensors(run, std::vector<StateTensor>{{"x", longer}}, "here"), BadFile);
  EXPECT_THROW(restore_tensors(run, std::vector<StateTensor>{{"x", narrow}}, "here"), BadFile);
  EXPECT_THROW(restore_tensors(run, std::vector<StateTensor>{{"x", a}, {"y", a}}, "here"), BadFile);
}

}  // namespace
}  // namespace temper::train
