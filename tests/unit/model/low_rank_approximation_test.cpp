// Factors of low rank against singular values in double.
#include "model/low_rank_approximation.h"

#include <gtest/gtest.h>

#include <cstring>

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
  Arena arena(std::size_t{1} << 28);
  const ExecContext ctx{&ops::cpu_backend(), &arena, DType::F32};
  f.singular = low_rank_approximation(ctx, f.matrix, f.b, f.a, 7);
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
