// Bootstrap intervals against cases with a known answer.
#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/rng.h"

namespace temper::eval {
namespace {

double normal(Rng& rng) {
  const double u = (static_cast<double>(rng.next()) + 0.5) * 0x1p-32, v = static_cast<double>(rng.next()) * 0x1p-32;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

TEST(Quantile, LinearBetweenNeighbours) {
  const std::vector<double> sorted = {1.0, 2.0, 4.0};
  EXPECT_EQ(quantile(sorted, 0.0), 1.0);
  EXPECT_EQ(quantile(sorted, 0.5), 2.0);
  EXPECT_EQ(quantile(sorted, 0.75), 3.0);
  EXPECT_EQ(quantile(sorted, 1.0), 4.0);
  EXPECT_EQ(quantile(std::vector<double>{7.0}, 0.3), 7.0);
}

TEST(Bootstrap, WidthOfAMeanIsThatOfTheNormalLaw) {
  Rng rng(11);
  const std::size_t n = 400;
  std::vector<double> x(n), ones(n, 1.0);
  double sum = 0.0, squares = 0.0;
  for (double& v : x) {
    v = 3.0 + 2.0 * normal(rng);
    sum += v;
    squares += v * v;
  }
  const double mean = sum / static_cast<double>(n);
  const double deviation = std::sqrt(squares / static_cast<double>(n) - mean * mean);
  const Estimate e = bootstrap_ratio(x, ones, {4000, 1});
  EXPECT_NEAR(e.value, mean, 1e-12);
  const double half = 1.959964 * deviation / std::sqrt(static_cast<double>(n));
  // A 2.5 % quantile of 4000 draws has a standard error of 2.7 standard errors / sqrt(4000), about 0.04; four of them.
  const double tolerance = 4.0 * 0.043 * deviation / std::sqrt(static_cast<double>(n));
  EXPECT_NEAR(e.low, mean - half, tolerance);
  EXPECT_NEAR(e.high, mean + half, tolerance);
}

TEST(Bootstrap, CoversTheTruthAboutNineteenTimesInTwenty) {
  // Rows of different lengths whose tokens share an effect of their row: the unit must be the row. Truth: 2 nats per token.
  constexpr int kTrials = 600;
  constexpr std::size_t kRows = 80;
  int covered = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    Rng rng(5, static_cast<std::uint64_t>(trial));
    std::vector<double> nll(kRows), tokens(kRows);
    for (std::size_t i = 0; i < kRows; ++i) {
      tokens[i] = 20.0 + rng.below(100);
      nll[i] = tokens[i] * (2.0 + 0.5 * normal(rng)) + std::sqrt(tokens[i]) * normal(rng);
    }
    const Estimate e = bootstrap_ratio(nll, tokens, {300, static_cast<std::uint64_t>(trial)});
    covered += e.low <= 2.0 && 2.0 <= e.high ? 1 : 0;
  }
  // The percentile method is a little short with 80 rows (about 94 %); 600 trials have a standard error of 1 %; four of
  // them.
  EXPECT_GT(covered, static_cast<int>(0.90 * kTrials));
  EXPECT_LT(covered, static_cast<int>(0.985 * kTrials));
}

TEST(Bootstrap, PairsModelsByRow) {
  Rng rng(3);
  std::vector<double> a(100), b(100), tokens(100);
  for (std::size_t i = 0; i < a.size(); ++i) {
    tokens[i] = 10.0 + rng.below(50);
    b[i] = tokens[i] * (1.0 + std::abs(normal(rng)));
    a[i] = b[i] + 0.25 * tokens[i];
  }
  // Every draw differs by exactly a quarter, however much the rows differ among themselves.
  const Estimate difference = bootstrap_difference(a, b, tokens, {});
  EXPECT_NEAR(difference.value, 0.25, 1e-12);
  EXPECT_NEAR(difference.low, 0.25, 1e-12);
  EXPECT_NEAR(difference.high, 0.25, 1e-12);
  const Estimate alone = bootstrap_ratio(a, tokens, {});
  EXPECT_GT(alone.high - alone.low, 0.1);
}

TEST(Bootstrap, RecoveredShare) {
  Rng rng(9);
  std::vector<double> tuned(100), ptq(100), qat(100);
  for (std::size_t i = 0; i < tuned.size(); ++i) {
    tuned[i] = 50.0 + 10.0 * normal(rng);
    const double lost = 5.0 + std::abs(normal(rng));
    ptq[i] = tuned[i] + lost;
    qat[i] = tuned[i] + 0.25 * lost;
  }
  const Estimate exact = bootstrap_recovered(tuned, ptq, qat, {});
  EXPECT_NEAR(exact.value, 0.75, 1e-12);
  EXPECT_NEAR(exact.low, 0.75, 1e-12);
  EXPECT_NEAR(exact.high, 0.75, 1e-12);
  for (double& x : qat) x += normal(rng);
  const Estimate noisy = bootstrap_recovered(tuned, ptq, qat, {});
  EXPECT_LT(noisy.low, noisy.value);
  EXPECT_GT(noisy.high, noisy.value);
  EXPECT_LT(noisy.high - noisy.low, 0.2);
}

TEST(Bootstrap, SeedsDecide) {
  const std::vector<double> x = {1, 5, 2, 8, 3, 9, 4}, ones(7, 1.0);
  const Estimate a = bootstrap_ratio(x, ones, {200, 1}), again = bootstrap_ratio(x, ones, {200, 1});
  const Estimate other = bootstrap_ratio(x, ones, {200, 2});
  EXPECT_EQ(a.low, again.low);
  EXPECT_EQ(a.high, again.high);
  EXPECT_TRUE(a.low != other.low || a.high != other.high);
}

TEST(Bootstrap, RefusesWhatIsNoTable) {
  const std::vector<double> two = {1, 2}, three = {1, 2, 3}, none;
  EXPECT_THROW(bootstrap_ratio(two, three, {}), LogicError);
  EXPECT_THROW(bootstrap_ratio(none, none, {}), LogicError);
  EXPECT_THROW(bootstrap_ratio(two, two, {0, 0}), LogicError);
}

TEST(Bootstrap, UndefinedFiguresHaveNoInterval) {
  const std::vector<double> zeros(5, 0.0);
  const Estimate e = bootstrap_ratio(zeros, zeros, {});
  EXPECT_TRUE(std::isnan(e.value));
  EXPECT_TRUE(std::isnan(e.low));
}

}  // namespace
}  // namespace temper::eval
