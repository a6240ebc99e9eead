// AdamW against a twin in double, and clipping by global norm.
#include "train/optimizer.h"

#include <gtest/gtest.h>

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
  Tensor parameters{DType::F32, {kSize}, true}, gradients{DType::F32, {kSize}, true};
  Rng rng{7};

  Fixture() {
    for (float& p : parameters.span<float>()) p = rng.uniform() - 0.5f;
  }
  void new_gradients() {
    for (float& g : gradients.span<float>()) g = 4.0f * rng.uniform() - 2.0f;
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
  Optimizer optimizer(o, max_grad_norm, f.parameters);
  Twin twin(f.parameters.span<float>());
  constexpr int kSteps = 20;
  const double lr = 1e-2;
  for (int t = 1; t <= kSteps; ++t) {
    f.new_gradients();
    double squares = 0;
    for (const float g : f.gradients.span<float>()) squares += static_cast<double>(g) * static_cast<double>(g);
    const double norm = Optimizer::norm(f.ctx, f.gradients);
    ASSERT_NEAR(norm, std::sqrt(squares), 1e-12 * norm);
    optimizer.step(f.ctx, f.gradients, norm, lr);
    twin.step(f.gradients.span<float>(), o, lr, max_grad_norm > 0 ? std::min(1.0, max_grad_norm / norm) : 1.0, t);
  }
  EXPECT_EQ(optimizer.steps(), kSteps);
  // Each step rounds a parameter (|p| < 1) once to f32 (2⁻²⁴), and its update (|update| ≤ lr · 3) with a relative error of
  // less than 64 roundings: moments (whose hyper-parameters 0.9, 0.999 are f32 too, the latter leaving 1 − β₂ only 17 bits),
  // their quotient, the root.
  const double bound = kSteps * (0x1p-24 + 3 * lr * (64 * 0x1p-24 + 0x1p-17));
  for (std::size_t i = 0; i < kSize; ++i) ASSERT_NEAR(f.parameters.span<float>()[i], twin.p[i], bound) << i;
}

TEST(Optimizer, EqualsTheDoubleTwin) { compare_with_twin(0, 0); }
TEST(Optimizer, DecaysWeightsApartFromTheGradient) { compare_with_twin(0, 0.1); }
TEST(Optimizer, ClipsByGlobalNorm) { compare_with_twin(1.0, 0); }
TEST(Optimizer, ALargeLimitClipsNothing) {
  Fixture a, b;
  Optimizer clipped({}, 1e6, a.parameters), free({}, 0, b.parameters);
  for (Fixture* f : {&a, &b}) f->new_gradients();
  clipped.step(a.ctx, a.gradients, Optimizer::norm(a.ctx, a.gradients), 1e-3);
  free.step(b.ctx, b.gradients, Optimizer::norm(b.ctx, b.gradients), 1e-3);
  for (std::size_t i = 0; i < kSize; ++i) ASSERT_EQ(a.parameters.span<float>()[i], b.parameters.span<float>()[i]);
}

TEST(Optimizer, NormOfANonFiniteGradientIsNotFinite) {
  Fixture f;
  f.new_gradients();
  f.gradients.span<float>()[617] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(std::isfinite(Optimizer::norm(f.ctx, f.gradients)));
  f.gradients.span<float>()[617] = -std::numeric_limits<float>::infinity();
  EXPECT_FALSE(std::isfinite(Optimizer::norm(f.ctx, f.gradients)));
}

TEST(Optimizer, RestoredGoesOnBitForBit) {
  Fixture a, b;
  Optimizer whole({}, 1.0, a.parameters), first({}, 1.0, b.parameters), second({}, 1.0, b.parameters);
  for (int t = 0; t < 6; ++t) {
    for (Fixture* f : {&a, &b}) f->new_gradients();
    if (t == 3) second.restore(first.steps(), first.first_moment(), first.second_moment());
    whole.step(a.ctx, a.gradients, Optimizer::norm(a.ctx, a.gradients), 1e-3);
    (t < 3 ? first : second).step(b.ctx, b.gradients, Optimizer::norm(b.ctx, b.gradients), 1e-3);
  }
  for (std::size_t i = 0; i < kSize; ++i) ASSERT_EQ(a.parameters.span<float>()[i], b.parameters.span<float>()[i]);
}

}  // namespace
}  // namespace temper::train
