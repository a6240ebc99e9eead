// Head and divergence from a teacher against their definition in double, on every instruction set.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "../ops/harness.h"

namespace temper::ops {
namespace {

using reference::kU32;
using reference::Matrix;
using DistillationTest = BackendTest;

constexpr std::int64_t kHidden = 48, kTeacherHidden = 32;

std::vector<std::int32_t> some_targets(std::int64_t rows, std::int64_t vocab) {
  std::vector<std::int32_t> targets;
  for (std::int64_t r = 0; r < rows; ++r) targets.push_back(static_cast<std::int32_t>((r * 7919 + vocab - 1) % vocab));
  return targets;
}

/// Student and teacher with hidden states of their own, and what the definition says of them.
struct Case {
  std::int64_t rows, vocab;
  TestTensor x{DType::F32, rows, kHidden, 1, 1.0, 4}, head{DType::F32, vocab, kHidden, 2, 1.0, 1};
  TestTensor y{DType::F32, rows, kTeacherHidden, 5, 1.0}, other{DType::F32, vocab, kTeacherHidden, 6, 1.0};
  TestTensor dx{DType::F32, rows, kHidden, 3}, dhead{DType::F32, vocab, kHidden, 4};
  std::vector<std::int32_t> targets = some_targets(rows, vocab);
  reference::Bounded logits = reference::matmul(x.matrix(), head.matrix(), Matrix(rows, vocab), {.transpose_b = true});
  reference::Bounded drawn = reference::matmul(y.matrix(), other.matrix(), Matrix(rows, vocab), {.transpose_b = true});
  std::vector<float> nll = std::vector<float>(static_cast<std::size_t>(rows)), kl = nll;

  TeacherRows teacher() const {
    TeacherRows rows_of_teacher;
    rows_of_teacher.hidden = y;
    rows_of_teacher.head = other.view();
    return rows_of_teacher;
  }
  /// exp within 2 ulp, its argument within u times twice the largest logit, sums over 16 lanes; the products' own errors.
  double relative() const {
    double off = 0;
    for (const reference::Bounded* b : {&logits, &drawn})
      for (const double e : b->error.values) off = std::max(off, e);
    return kU32 * (static_cast<double>(vocab) / 16 + 4 * 48.0 + 16) + 2 * off;
  }
};

/// Gradients of c · NLL + d · τ² · KL, and both parts.
void expect_loss(const ExecContext& ctx, std::int64_t rows, std::int64_t vocab, const DistillationMix& mix) {
  Case c{rows, vocab};
  constexpr double kScale = 0.01;
  Matrix grad(rows, vocab);
  const auto nll =
      reference::cross_entropy(c.logits.value, c.targets, kScale * static_cast<double>(mix.cross_entropy), &grad);
  const double tau = static_cast<double>(mix.temperature);
  const auto kl =
      reference::divergence(c.logits.value, c.drawn.value, tau, kScale * static_cast<double>(mix.divergence), &grad);
  const HeadGradients gradients{c.dx, &c.dhead.view()};
  linear_distillation(ctx, c.x, c.head.view(), c.targets, c.teacher(), mix, static_cast<float>(kScale), c.nll, c.kl,
                      &gradients);
  const double relative = c.relative();
  for (std::size_t i = 0; i < nll.size(); ++i) {
    EXPECT_NEAR(c.nll[i], nll[i], relative + 4 * kU32 * (48.0 + nll[i]));
    // Its terms p · (log p − log q) sum up to at most the range of log p − log q.
    EXPECT_NEAR(c.kl[i], kl[i], relative * (1 + 96.0 / tau));
  }
  const auto dx = reference::matmul(grad, c.head.matrix(), Matrix(rows, kHidden), {});
  const auto dhead = reference::matmul(grad, c.x.matrix(), Matrix(vocab, kHidden), {.transpose_a = true});
  // Each of softmax, q and p is off by `relative` of itself; a row of each sums up to 1, and inputs are at most 1.
  const double row_error =
      relative * kScale * (2 * static_cast<double>(mix.cross_entropy) + 2 * static_cast<double>(mix.divergence) * tau);
  Matrix dx_error = dx.error, dhead_error = dhead.error;
  for (double& e : dx_error.values) e += row_error;
  for (double& e : dhead_error.values) e += row_error * static_cast<double>(rows);
  expect_close(c.dx, dx.value, dx_error, "dhidden");
  // dhead began with random values of its own.
  const Matrix before = TestTensor(DType::F32, vocab, kHidden, 4).matrix();
  Matrix sum = dhead.value;
  for (std::size_t i = 0; i < sum.values.size(); ++i) {
    sum.values[i] += before.values[i];
    dhead_error.values[i] += kU32 * static_cast<double>(rows) * std::abs(sum.values[i]);
  }
  expect_close(c.dhead, sum, dhead_error, "dhead");
}

/// Rows fall into three chunks of 256.
TEST_P(DistillationTest, EqualsTheDefinition) {
  expect_loss(ctx_, 530, 203, {0.0f, 1.0f, 1.0f});
  for (const float tau : {0.5f, 1.0f, 3.0f}) expect_loss(ctx_, 20, 131, {0.3f, 0.7f, tau});
}

TEST_P(DistillationTest, OfTheSameDistributionIsNothing) {
  Case c{9, 77};
  TeacherRows same;
  same.hidden = c.x;
  same.head = c.head.view();
  const HeadGradients gradients{c.dx, nullptr};
  linear_distillation(ctx_, c.x, c.head.view(), c.targets, same, {0.0f, 1.0f, 2.0f}, 1.0f, c.nll, c.kl, &gradients);
  for (const float kl : c.kl) EXPECT_EQ(kl, 0.0f);
  // q · a − q · a may keep the rounding of one of its products: u of a row's sum, which is τ.
  for (const double g : c.dx.row()) EXPECT_NEAR(g, 0.0, 2 * kU32);
}

TEST_P(DistillationTest, WithoutDivergenceItIsCrossEntropyBitForBit) {
  for (const DType type : {DType::F32, DType::BF16}) {
    const std::int64_t rows = 300, vocab = 203;
    const TestTensor x(type, rows, kHidden, 1), head(type, vocab, kHidden, 2);
    const TestTensor dx(DType::F32, rows, kHidden, 3), dx2(DType::F32, rows, kHidden, 3);
    const auto targets = some_targets(rows, vocab);
    std::vector<float> nll(targets.size()), nll2(targets.size()), kl(targets.size(), 7.0f);
    const HeadGradients gradients{dx, nullptr}, gradients2{dx2, nullptr};
    linear_cross_entropy(ctx_, x, head.view(), targets, 0.3f, nll, &gradients);
    linear_distillation(ctx_, x, head.view(), targets, {}, {1.0f, 0.0f, 1.0f}, 0.3f, nll2, kl, &gradients2);
    EXPECT_EQ(nll, nll2);
    EXPECT_EQ(dx.bytes(), dx2.bytes());
    EXPECT_EQ(kl, std::vector<float>(targets.size(), 0.0f));
  }
}

/// The k likeliest of each row of the definition's logits, at a temperature.
struct Top {
  std::vector<std::int32_t> ids;
  std::vector<float> log_probs, log_rest;
};
Top top_of(const Matrix& logits, std::int64_t k, double tau) {
  Top top;
  for (std::int64_t r = 0; r < logits.rows; ++r) {
    std::vector<std::int32_t> order(static_cast<std::size_t>(logits.cols));
    std::iota(order.begin(), order.end(), 0);
    std::ranges::sort(order, [&](std::int32_t a, std::int32_t b) { return logits(r, a) > logits(r, b); });
    double total = 0, rest = 0;
    for (std::int64_t c = 0; c < logits.cols; ++c) total += std::exp(logits(r, c) / tau);
    for (std::int64_t j = 0; j < logits.cols; ++j) {
      const double log_p = logits(r, order[static_cast<std::size_t>(j)]) / tau - std::log(total);
      if (j >= k) rest += std::exp(log_p);
      if (j >= k) continue;
      top.ids.push_back(order[static_cast<std::size_t>(j)]);
      top.log_probs.push_back(static_cast<float>(log_p));
    }
    top.log_rest.push_back(static_cast<float>(std::log(rest)));  // -inf of 0
  }
  return top;
}

/// The definition of the k + 1 outcomes: gradients by p_rest and q_rest in double.
void expect_top(const ExecContext& ctx, std::int64_t k, const DistillationMix& mix) {
  const std::int64_t rows = 12, vocab = 131;
  constexpr double kScale = 0.01;
  Case c{rows, vocab};
  const double tau = static_cast<double>(mix.temperature), d = static_cast<double>(mix.divergence);
  const Top top = top_of(c.drawn.value, k, tau);
  Matrix grad(rows, vocab);
  reference::cross_entropy(c.logits.value, c.targets, kScale * static_cast<double>(mix.cross_entropy), &grad);
  std::vector<double> kl(static_cast<std::size_t>(rows));
  for (std::int64_t r = 0; r < rows; ++r) {
    double total = 0, q_rest = 0;
    for (std::int64_t v = 0; v < vocab; ++v) total += std::exp(c.logits.value(r, v) / tau);
    const auto q = [&](std::int64_t v) { return std::exp(c.logits.value(r, v) / tau) / total; };
    std::vector<double> p(static_cast<std::size_t>(vocab), -1.0);
    for (std::int64_t j = 0; j < k; ++j)
      p[static_cast<std::size_t>(top.ids[static_cast<std::size_t>(r * k + j)])] =
          std::exp(static_cast<double>(top.log_probs[static_cast<std::size_t>(r * k + j)]));
    const double p_rest = std::exp(static_cast<double>(top.log_rest[static_cast<std::size_t>(r)]));
    for (std::int64_t v = 0; v < vocab; ++v)
      if (p[static_cast<std::size_t>(v)] < 0) q_rest += q(v);
    double& sum = kl[static_cast<std::size_t>(r)];
    if (p_rest > 0) sum += p_rest * std::log(p_rest / q_rest);
    for (std::int64_t v = 0; v < vocab; ++v) {
      const double pv = p[static_cast<std::size_t>(v)];
      if (pv >= 0) sum += pv * std::log(pv / q(v));
      grad(r, v) += kScale * d * tau * (pv >= 0 ? q(v) - pv : q(v) * (1 - p_rest / q_rest));
    }
  }
  TeacherRows teacher;
  teacher.top_k = k;
  teacher.ids = top.ids;
  teacher.log_probs = top.log_probs;
  teacher.log_rest = top.log_rest;
  const HeadGradients gradients{c.dx, nullptr};
  linear_distillation(ctx, c.x, c.head.view(), c.targets, teacher, mix, static_cast<float>(kScale), c.nll, c.kl, &gradients);
  // As above; log p is rounded to f32, an error of u times its size (at most 2 · 48 / τ), and the share p_rest / q_rest of
  // the others is off by as much of itself.
  const double relative = c.relative() + kU32 * 96.0 / tau;
  for (std::size_t i = 0; i < kl.size(); ++i) EXPECT_NEAR(c.kl[i], kl[i], relative * (1 + 96.0 / tau)) << k;
  const auto dx = reference::matmul(grad, c.head.matrix(), Matrix(rows, kHidden), {});
  Matrix error = dx.error;
  for (double& e : error.values) e += relative * kScale * (2 * static_cast<double>(mix.cross_entropy) + 4 * d * tau);
  expect_close(c.dx, dx.value, error, fmt::format("dhidden of top {}", k));
}

TEST_P(DistillationTest, TopKEqualsTheDefinition) {
  for (const std::int64_t k : {1, 5, 130, 131})
    for (const DistillationMix& mix : {DistillationMix{0.0f, 1.0f, 1.0f}, DistillationMix{0.4f, 0.6f, 2.0f}})
      expect_top(ctx_, k, mix);
}

TEST_P(DistillationTest, ThreadsDoNotChangeABitNorDoesBf16Overlay) {
  const std::int64_t rows = 300, vocab = 500;
  const TestTensor x(DType::BF16, rows, kHidden, 1), head(DType::BF16, vocab, kHidden, 2), y(DType::BF16, rows, kHidden, 7);
  const auto targets = some_targets(rows, vocab);
  TeacherRows teacher;
  teacher.hidden = y;
  teacher.head = head.view();
  std::vector<std::vector<std::byte>> results;
  for (const int threads : {1, 2}) {
    const ThreadsScope scope(threads);
    const TestTensor dx(DType::F32, rows, kHidden, 3);
    std::vector<float> nll(targets.size()), kl(targets.size());
    const HeadGradients gradients{dx, nullptr};
    linear_distillation(ctx_, x, head.view(), targets, teacher, {0.5f, 0.5f, 2.0f}, 1.0f, nll, kl, &gradients);
    results.push_back(dx.bytes());
    Matrix grad(rows, vocab);
    const auto student = reference::matmul(x.matrix(), head.matrix(), Matrix(rows, vocab), {.transpose_b = true});
    const auto drawn = reference::matmul(y.matrix(), head.matrix(), Matrix(rows, vocab), {.transpose_b = true});
    reference::cross_entropy(student.value, targets, 0.5, &grad);
    reference::divergence(student.value, drawn.value, 2.0, 0.5, &grad);
    const auto expected = reference::matmul(grad, head.matrix(), Matrix(rows, kHidden), {});
    Matrix error = expected.error;  // gradients of logits are rounded to bf16: a row's magnitudes sum up to at most 3
    for (double& e : error.values) e += 3 * reference::unit(DType::BF16);
    expect_close(dx, expected.value, error, "dhidden");
  }
  EXPECT_EQ(results[0], results[1]);
}

TEST_P(DistillationTest, RowScalesMultiplyARowsGradient) {
  const std::int64_t rows = 20, vocab = 99;
  const TestTensor x(DType::F32, rows, kHidden, 1), head(DType::F32, vocab, kHidden, 2);
  const TestTensor dx(DType::F32, rows, kHidden, 3), plain(DType::F32, rows, kHidden, 3);
  const auto targets = some_targets(rows, vocab);
  std::vector<float> nll(targets.size()), scales;
  for (std::size_t i = 0; i < targets.size(); ++i) scales.push_back(i % 3 == 0 ? 0.0f : i % 2 ? 2.0f : -0.5f);
  HeadGradients gradients{plain, nullptr};
  linear_cross_entropy(ctx_, x, head.view(), targets, 1.0f, nll, &gradients);
  gradients.dhidden = dx;
  gradients.row_scale = scales;
  linear_cross_entropy(ctx_, x, head.view(), targets, 1.0f, nll, &gradients);
  // Powers of two: exact, but for the order of sums, which stays.
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t h = 0; h < kHidden; ++h)
      EXPECT_EQ(get(dx, r, h), get(plain, r, h) * static_cast<double>(scales[static_cast<std::size_t>(r)]));
}

TEST_P(DistillationTest, RefusesAnotherVocabulary) {
  Case c{4, 40};
  const TestTensor smaller(DType::F32, 39, kTeacherHidden, 6);
  TeacherRows teacher = c.teacher();
  teacher.head = smaller.view();
  EXPECT_THROW(
      linear_distillation(ctx_, c.x, c.head.view(), c.targets, teacher, {0.0f, 1.0f, 1.0f}, 1.0f, c.nll, c.kl, nullptr),
      LogicError);
}

TEMPER_BACKEND_SUITE(DistillationTest);

}  // namespace
}  // namespace temper::ops
