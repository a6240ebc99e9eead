#include "../ops/harness.h"

namespace temper::ops {
namespace {

using reference::kU32;
using reference::Matrix;
using LossTest = BackendTest;

std::vector<std::int32_t> some_targets(std::int64_t rows, std::int64_t vocab) {
  std::vector<std::int32_t> targets;
  for (std::int64_t r = 0; r < rows; ++r) targets.push_back(static_cast<std::int32_t>((r * 7919 + vocab - 1) % vocab));
  return targets;
}

/// exp within 2 ulp and its argument within u·|x|; the sum of V terms over 16 lanes.
double relative_error(std::int64_t vocab, double largest) {
  return kU32 * (static_cast<double>(vocab) / 16 + 2 * largest + 16);
}

TEST_P(LossTest, CrossEntropyEqualsTheDefinition) {
  for (const std::int64_t vocab : {1, 15, 16, 49, 1000, 49152})
    for (const DType type : {DType::F32, DType::BF16}) {
      const std::int64_t rows = vocab > 10000 ? 2 : 9;
      const TestTensor logits(DType::F32, rows, vocab, 1, 20.0, 3), grad(type, rows, vocab, 2, 1.0, 5);
      if (vocab > 1) set(logits, 1, 0, -1e30);
      const auto targets = some_targets(rows, vocab);
      Matrix expected(rows, vocab), error(rows, vocab);
      const auto nll = reference::cross_entropy(logits.matrix(), targets, 0.37f, &expected);
      std::vector<float> found(targets.size());
      cross_entropy(ctx_, logits, targets, 0.37f, found, &grad.view());
      const double relative = relative_error(vocab, 40.0);
      for (std::size_t i = 0; i < found.size(); ++i)
        EXPECT_NEAR(found[i], nll[i], relative + 4 * kU32 * (40.0 + std::abs(nll[i])));
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t c = 0; c < vocab; ++c) {
          const bool at_target = c == targets[static_cast<std::size_t>(r)];
          error(r, c) = relative * (std::abs(expected(r, c)) + (at_target ? 0.37 : 0.0));
        }
      expect_close(grad, expected, error, fmt::format("dlogits of {}", vocab));
      std::vector<float> alone(targets.size());
      cross_entropy(ctx_, logits, targets, 1.0f, alone, nullptr);
      EXPECT_EQ(found, alone);
    }
}

TEST_P(LossTest, GradientMayOverwriteTheLogits) {
  const TestTensor logits(DType::F32, 5, 77, 1, 5.0), same(DType::F32, 5, 77, 1, 5.0), grad(DType::F32, 5, 77, 2);
  const auto targets = some_targets(5, 77);
  std::vector<float> nll(5), again(5);
  cross_entropy(ctx_, logits, targets, 0.5f, nll, &grad.view());
  cross_entropy(ctx_, same, targets, 0.5f, again, &same.view());
  EXPECT_EQ(nll, again);
  EXPECT_EQ(grad.bytes(), same.bytes());
}

TEST_P(LossTest, InfiniteLogitsShowInTheLoss) {
  const TestTensor logits(DType::F32, 2, 40, 1);
  set(logits, 0, 3, NAN);
  set(logits, 1, 3, INFINITY);
  std::vector<float> nll(2);
  cross_entropy(ctx_, logits, some_targets(2, 40), 1.0f, nll, nullptr);
  EXPECT_FALSE(std::isfinite(nll[0]));
  EXPECT_FALSE(std::isfinite(nll[1]));
}

/// Rows fall into three chunks of 256.
TEST_P(LossTest, FusedHeadEqualsTheDefinition) {
  const std::int64_t rows = 530, vocab = 203, hidden = 48;
  const TestTensor x(DType::F32, rows, hidden, 1, 1.0, 4), head(DType::F32, vocab, hidden, 2, 1.0, 1);
  const TestTensor dx(DType::F32, rows, hidden, 3), dhead(DType::F32, vocab, hidden, 4);
  const auto targets = some_targets(rows, vocab);
  const reference::Bounded logits = reference::matmul(x.matrix(), head.matrix(), Matrix(rows, vocab), {.transpose_b = true});
  Matrix grad(rows, vocab);
  const auto nll = reference::cross_entropy(logits.value, targets, 0.01f, &grad);
  const reference::Bounded dx_expected = reference::matmul(grad, head.matrix(), Matrix(rows, hidden), {});
  const reference::Bounded dhead_expected =
      reference::matmul(grad, x.matrix(), dhead.matrix(), {.transpose_a = true, .accumulate = true});
  std::vector<float> found(targets.size());
  const HeadGradients gradients{dx, &dhead.view()};
  linear_cross_entropy(ctx_, x, head.view(), targets, 0.01f, found, &gradients);
  double logit_error = 0;
  for (const double e : logits.error.values) logit_error = std::max(logit_error, e);
  const double relative = relative_error(vocab, 48.0) + 2 * logit_error;
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], nll[i], relative + 4 * kU32 * (48.0 + nll[i]));
  // Each dlogit is off by at most `relative` of p (or of 1 at the target); a sum of |p − onehot| is at most 2 · grad_scale.
  Matrix dx_error = dx_expected.error, dhead_error = dhead_expected.error;
  for (double& e : dx_error.values) e += relative * 2 * 0.01;
  for (double& e : dhead_error.values) e += relative * 2 * 0.01 * static_cast<double>(rows);
  expect_close(dx, dx_expected.value, dx_error, "dhidden");
  expect_close(dhead, dhead_expected.value, dhead_error, "dhead");
}

TEST_P(LossTest, FusedHeadInBf16) {
  const std::int64_t rows = 40, vocab = 300, hidden = 64;
  const TestTensor x(DType::BF16, rows, hidden, 1), head(DType::BF16, vocab, hidden, 2), dx(DType::F32, rows, hidden, 3);
  const auto targets = some_targets(rows, vocab);
  const reference::Bounded logits = reference::matmul(x.matrix(), head.matrix(), Matrix(rows, vocab), {.transpose_b = true});
  Matrix grad(rows, vocab);
  const auto nll = reference::cross_entropy(logits.value, targets, 1.0f, &grad);
  const reference::Bounded expected = reference::matmul(grad, head.matrix(), Matrix(rows, hidden), {});
  std::vector<float> found(targets.size());
  const HeadGradients gradients{dx, nullptr};
  linear_cross_entropy(ctx_, x, head.view(), targets, 1.0f, found, &gradients);
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], nll[i], 1e-4);
  // dlogits are rounded to bf16 before the product: u_bf16 of Σ |p − onehot|·|head| <= 2.
  Matrix error = expected.error;
  for (double& e : error.values) e += 2 * reference::unit(DType::BF16);
  expect_close(dx, expected.value, error, "dhidden");
}

TEST_P(LossTest, ThreadsDoNotChangeABit) {
  const std::int64_t rows = 300, vocab = 1500, hidden = 64;
  const TestTensor x(DType::BF16, rows, hidden, 1), head(DType::BF16, vocab, hidden, 2);
  std::vector<std::vector<std::byte>> results;
  std::vector<std::vector<float>> losses;
  for (const int threads : {1, 2, 3}) {
    const ThreadsScope scope(threads);
    const TestTensor dx(DType::F32, rows, hidden, 3), dhead(DType::F32, vocab, hidden, 4);
    std::vector<float> nll(static_cast<std::size_t>(rows));
    const HeadGradients gradients{dx, &dhead.view()};
    linear_cross_entropy(ctx_, x, head.view(), some_targets(rows, vocab), 1.0f, nll, &gradients);
    results.push_back(dx.bytes());
    const auto more = dhead.bytes();
    results.back().insert(results.back().end(), more.begin(), more.end());
    losses.push_back(nll);
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
  EXPECT_EQ(losses[0], losses[1]);
  EXPECT_EQ(losses[0], losses[2]);
}

TEMPER_BACKEND_SUITE(LossTest);

}  // namespace
}  // namespace temper::ops
