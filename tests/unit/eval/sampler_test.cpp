// The sampler's distribution: chi-square over many draws, and what top-k and top-p leave.
#include "eval/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"

namespace temper::eval {
namespace {

constexpr int kDraws = 20000;
const std::vector<float> kLogits = {1.0f, -0.5f, 2.0f, 0.25f, 2.0f, -3.0f, 0.0f, 1.5f};

std::vector<int> draw(const SamplingOptions& options, std::uint64_t seed) {
  Sampler sampler(options, seed);
  std::vector<int> counts(kLogits.size(), 0);
  for (int i = 0; i < kDraws; ++i) ++counts[static_cast<std::size_t>(sampler.sample(kLogits))];
  return counts;
}

/// Softmax of the logits over `allowed` tokens.
std::vector<double> expected(double temperature, const std::vector<bool>& allowed) {
  std::vector<double> p(kLogits.size(), 0.0);
  double total = 0.0;
  for (std::size_t i = 0; i < p.size(); ++i) total += p[i] = allowed[i] ? std::exp(double{kLogits[i]} / temperature) : 0.0;
  for (double& x : p) x /= total;
  return p;
}

void expect_distribution(const std::vector<int>& counts, const std::vector<double>& p) {
  double chi_square = 0.0;
  int degrees = -1;
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0.0) {
      EXPECT_EQ(counts[i], 0) << "token " << i;
      continue;
    }
    const double mean = p[i] * kDraws;
    chi_square += (counts[i] - mean) * (counts[i] - mean) / mean;
    ++degrees;
  }
  // Mean k, variance 2k: five deviations is beyond the 99.9 % point of every k here.
  EXPECT_LE(chi_square, degrees + 5.0 * std::sqrt(2.0 * degrees));
}

TEST(Sampler, Temperature) {
  const std::vector<bool> all(kLogits.size(), true);
  for (const double temperature : {0.5, 1.0, 2.0})
    expect_distribution(draw({temperature, 0, 1.0}, 1), expected(temperature, all));
}

TEST(Sampler, TopK) {
  std::vector<bool> three(kLogits.size(), false);
  three[2] = three[4] = three[7] = true;
  expect_distribution(draw({1.0, 3, 1.0}, 2), expected(1.0, three));
  std::vector<bool> one(kLogits.size(), false);
  one[2] = true;  // of two equal ones the lower id
  expect_distribution(draw({1.0, 1, 1.0}, 2), expected(1.0, one));
  expect_distribution(draw({1.0, 100, 1.0}, 2), expected(1.0, std::vector<bool>(kLogits.size(), true)));
}

TEST(Sampler, TopP) {
  // Probabilities at temperature 1, likeliest first: ids 2 and 4 (0.300 each), 7 (0.182), 0 (0.110), …
  const std::vector<double> p = expected(1.0, std::vector<bool>(kLogits.size(), true));
  std::vector<bool> kept(kLogits.size(), false);
  kept[2] = kept[4] = true;
  expect_distribution(draw({1.0, 0, p[2] + p[4] - 1e-6}, 3), expected(1.0, kept));
  kept[7] = true;
  expect_distribution(draw({1.0, 0, p[2] + p[4] + 1e-6}, 3), expected(1.0, kept));
  kept[4] = kept[7] = false;
  expect_distribution(draw({1.0, 0, 1e-9}, 3), expected(1.0, kept));
}

TEST(Sampler, GreedyTakesTheFirstOfTheLikeliest) {
  Sampler sampler({0.0, 0, 1.0}, 4);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(sampler.sample(kLogits), 2);
}

TEST(Sampler, SeedsDecide) {
  const auto sequence = [](std::uint64_t seed) {
    Sampler sampler({1.0, 0, 0.9}, seed);
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(sampler.sample(kLogits));
    return ids;
  };
  EXPECT_EQ(sequence(7), sequence(7));
  EXPECT_NE(sequence(7), sequence(8));
}

TEST(Sampler, HugeLogitsAndImpossibleTokens) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  const std::vector<float> logits = {kNever, 1e30f, kNever, 1e30f};
  Sampler sampler({1.0, 0, 0.99}, 5);
  int first = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::int32_t id = sampler.sample(logits);
    ASSERT_TRUE(id == 1 || id == 3);
    first += id == 1 ? 1 : 0;
  }
  EXPECT_NEAR(first, 500, 5 * std::sqrt(250.0));
}

TEST(Sampler, Refuses) {
  EXPECT_THROW(Sampler({-1.0, 0, 1.0}, 0), BadRecipe);
  EXPECT_THROW(Sampler({1.0, -1, 1.0}, 0), BadRecipe);
  EXPECT_THROW(Sampler({1.0, 0, 0.0}, 0), BadRecipe);
  EXPECT_THROW(Sampler({1.0, 0, 1.5}, 0), BadRecipe);
  Sampler sampler({1.0, 0, 1.0}, 0);
  EXPECT_THROW(sampler.sample(std::vector<float>{0.0f, std::nanf("")}), Diverged);
  EXPECT_THROW(sampler.sample(std::vector<float>(3, -std::numeric_limits<float>::infinity())), Diverged);
}

}  // namespace
}  // namespace temper::eval
