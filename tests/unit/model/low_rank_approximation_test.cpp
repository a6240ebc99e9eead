// Factors of low rank against singular values in double.
#include "model/low_rank_approximation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/parallel.h"
#include "base/rng.h"
#include "jacobi.h"
#include "ops/cpu/cpu_backend.h"

namespace temper::model {
namespace {

struct Factors {
  Tensor matrix, a, b;
  std::vector<double> singular;
};

void decompose(Factors& f) {
  Arena arena(std::size_t{1} << 28);
  const ExecContext ctx{&ops::cpu_backend(), &arena, DType::F32};
  f.singular = low_rank_approximation(ctx, f.matrix, f.b, f.a, 7);
}

/// So many orthonormal vectors of n elements.
std::vector<std::vector<double>> orthonormal(std::size_t count, std::size_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<std::vector<double>> out;
  while (out.size() < count) {
    std::vector<double> x(n);
    for (double& v : x) v = 2 * static_cast<double>(rng.uniform()) - 1;
    for (int pass = 0; pass < 2; ++pass)
      for (const std::vector<double>& y : out) {
        const double part = std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
        for (std::size_t i = 0; i < n; ++i) x[i] -= part * y[i];
      }
    const double norm = std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
    for (double& v : x) v /= norm;
    out.push_back(std::move(x));
  }
  return out;
}

/// rows × cols of random signs' noise, and on top of it `spikes` directions of falling size.
Factors factors_of(std::int64_t rows, std::int64_t cols, std::int64_t rank, int spikes, float noise) {
  Factors f{Tensor(DType::F32, {rows, cols}, true),
            Tensor(DType::F32, {rank, cols}, true),
            Tensor(DType::F32, {rows, rank}, true),
            {}};
  Rng rng(3);
  const auto uniform = [&] { return 2 * rng.uniform() - 1; };
  for (float& x : f.matrix.span<float>()) x = noise * uniform();
  for (int s = 0; s < spikes; ++s) {
    std::vector<float> left(static_cast<std::size_t>(rows)), right(static_cast<std::size_t>(cols));
    for (float& x : left) x = uniform();
    for (float& x : right) x = uniform() / static_cast<float>(1 << s);
    for (std::size_t n = 0; n < left.size(); ++n)
      for (std::size_t k = 0; k < right.size(); ++k) f.matrix.span<float>()[n * right.size() + k] += left[n] * right[k];
  }
  decompose(f);
  return f;
}

double squared_distance(const Factors& f) {
  const auto m = f.matrix.span<float>(), a = f.a.span<float>(), b = f.b.span<float>();
  const std::size_t cols = static_cast<std::size_t>(f.matrix->cols()), rank = static_cast<std::size_t>(f.a->rows());
  double sum = 0;
  for (std::size_t i = 0; i < m.size(); ++i) {
    double x = static_cast<double>(m[i]);
    for (std::size_t r = 0; r < rank; ++r)
      x -= static_cast<double>(b[i / cols * rank + r]) * static_cast<double>(a[r * cols + i % cols]);
    sum += x * x;
  }
  return sum;
}

/// What an iteration leaves is at most 1e-5 of what is held, and the last ones' gains fall by at least half (twice the rank
/// and eight more directions): within 1e-4 of the best in squares, of the matrix; all values to f32's rounding where the
/// directions span the matrix.
TEST(LowRankApproximation, IsTheNearest) {
  for (const auto& [rows, cols, spikes, noise] :
       {std::tuple{96, 64, 3, 0.01f}, {64, 96, 6, 0.2f}, {80, 72, 0, 1.0f}, {20, 15, 2, 0.3f}}) {
    constexpr std::int64_t kRank = 4;
    const Factors f = factors_of(rows, cols, kRank, spikes, noise);
    const auto m = f.matrix.span<float>();
    const auto expected = testing::singular_values({m.begin(), m.end()}, static_cast<std::size_t>(cols));
    const double all = testing::squares_from(expected, 0), best = testing::squares_from(expected, kRank);
    EXPECT_GE(squared_distance(f), best - 1e-6 * all);
    EXPECT_LE(squared_distance(f), best + 1e-4 * all) << rows << " x " << cols;
    for (std::size_t r = 0; r < static_cast<std::size_t>(kRank); ++r)
      EXPECT_NEAR(f.singular[r], expected[r], (spikes > 3 || rows == 20 ? 1e-5 : 1e-2) * expected[0]) << r;
  }
}

/// Of whole weights, whose singular values fall about as 1 / √i, the leading components come out to f32's rounding: with 16
/// directions, an iteration makes what is wrong of the fourth smaller by σ₁₇² / σ₄² (in squares of the distance by that
/// squared, 1/18), and the gain that ends the iterations is that of all 16 together, of which the last hardly shrink.
TEST(LowRankApproximation, FindsThePrincipalComponentsOfWeights) {
  constexpr std::int64_t kRows = 96, kCols = 64, kRank = 4;
  Factors f{Tensor(DType::F32, {kRows, kCols}, true),
            Tensor(DType::F32, {kRank, kCols}, true),
            Tensor(DType::F32, {kRows, kRank}, true),
            {}};
  const auto left = orthonormal(64, 96, 5), right = orthonormal(64, 64, 6);
  const auto value = [](std::size_t i) { return 1 / std::sqrt(static_cast<double>(i + 1)); };
  std::vector<double> exact(static_cast<std::size_t>(kRows * kCols));
  for (std::size_t n = 0; n < 96; ++n)
    for (std::size_t k = 0; k < 64; ++k)
      for (std::size_t i = 0; i < 64; ++i) exact[n * 64 + k] += value(i) * left[i][n] * right[i][k];
  std::ranges::transform(exact, f.matrix.span<float>().begin(), [](double x) { return static_cast<float>(x); });
  decompose(f);
  // Products of up to 96 terms in f32, of vectors of length 1 and a matrix of norm 1.
  constexpr double kRounding = 96 * 6e-8;
  for (std::size_t r = 0; r < 4; ++r) {
    EXPECT_NEAR(f.singular[r], value(r), kRounding) << r;
    double along_left = 0, along_right = 0;  // of b's column and a's row with the vectors that they are
    for (std::size_t n = 0; n < 96; ++n) along_left += left[r][n] * static_cast<double>(f.b.span<float>()[n * 4 + r]);
    for (std::size_t k = 0; k < 64; ++k) along_right += right[r][k] * static_cast<double>(f.a.span<float>()[r * 64 + k]);
    EXPECT_NEAR(along_left * along_right, value(r), 4 * kRounding) << r;
  }
  double best = 0;
  for (std::size_t i = 4; i < 64; ++i) best += value(i) * value(i);
  EXPECT_NEAR(squared_distance(f), best, 2 * kRounding);
}

/// U √S and √S Vᵀ: columns of b and rows of a are orthogonal and as long as each other.
TEST(LowRankApproximation, FactorsShareTheSingularValues) {
  const Factors f = factors_of(96, 64, 3, 5, 0.05f);
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t j = 0; j <= i; ++j) {
      double of_a = 0, of_b = 0;
      for (std::size_t k = 0; k < 64; ++k)
        of_a += static_cast<double>(f.a.span<float>()[i * 64 + k]) * static_cast<double>(f.a.span<float>()[j * 64 + k]);
      for (std::size_t n = 0; n < 96; ++n)
        of_b += static_cast<double>(f.b.span<float>()[n * 3 + i]) * static_cast<double>(f.b.span<float>()[n * 3 + j]);
      const double expected = i == j ? f.singular[i] : 0;
      EXPECT_NEAR(of_a, expected, 1e-4 * f.singular[0]);
      EXPECT_NEAR(of_b, expected, 1e-4 * f.singular[0]);
    }
}

TEST(LowRankApproximation, OfFewerDirectionsThanAskedFor) {
  const Factors f = factors_of(40, 30, 4, 2, 0.0f);  // rank 2
  EXPECT_LE(squared_distance(f), 1e-10 * f.singular[0] * f.singular[0]);
  for (std::size_t n = 0; n < 40; ++n) EXPECT_EQ(f.b.span<float>()[n * 4 + 3], 0.0f);  // not written
  const Factors none = factors_of(40, 30, 4, 0, 0.0f);
  EXPECT_EQ(none.singular, std::vector<double>(4, 0.0));
}

TEST(LowRankApproximation, ThreadsDoNotChangeABit) {
  const int threads = num_threads();
  set_num_threads(1);
  const Factors one = factors_of(96, 64, 4, 3, 0.1f);
  set_num_threads(2);
  const Factors two = factors_of(96, 64, 4, 3, 0.1f);
  set_num_threads(threads);
  EXPECT_EQ(std::memcmp(one.a->data, two.a->data, one.a->bytes()), 0);
  EXPECT_EQ(std::memcmp(one.b->data, two.b->data, one.b->bytes()), 0);
}

}  // namespace
}  // namespace temper::model
