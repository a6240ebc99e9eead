#include "model/low_rank_approximation.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/rng.h"
#include "ops/ops.h"

namespace temper::model {
namespace {

/// A square matrix in double, row by row.
struct Square {
  std::size_t n;
  std::vector<double> values = std::vector<double>(n * n, 0.0);
  double& operator()(std::size_t r, std::size_t c) { return values[r * n + c]; }
  double operator()(std::size_t r, std::size_t c) const { return values[r * n + c]; }
};

double dot(const float* x, const float* y, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(y[i]);
  return sum;
}

/// Makes the rows of x F32 orthonormal (Gram-Schmidt, twice: Giraud et al. 2005); a row that depends on those before it
/// becomes zero.
void orthonormalize_rows(const TensorView& x) {
  const std::int64_t n = x.cols();
  for (std::int64_t r = 0; r < x.rows(); ++r) {
    float* row = x.as<float>() + r * x.row_stride;
    const double before = std::sqrt(dot(row, row, n));
    for (int pass = 0; pass < 2; ++pass)
      for (std::int64_t other = 0; other < r; ++other) {
        const float* earlier = x.as<float>() + other * x.row_stride;
        const double part = dot(row, earlier, n);
        for (std::int64_t i = 0; i < n; ++i)
          row[i] = static_cast<float>(static_cast<double>(row[i]) - part * static_cast<double>(earlier[i]));
      }
    const double norm = std::sqrt(dot(row, row, n));
    const double factor = norm > 1e-6 * before && norm > 0 ? 1 / norm : 0;
    for (std::int64_t i = 0; i < n; ++i) row[i] = static_cast<float>(static_cast<double>(row[i]) * factor);
  }
}

/// One rotation of Jacobi's method in rows and columns p and q of a symmetric matrix, kept in `vectors`.
void rotate(Square& g, Square& vectors, std::size_t p, std::size_t q) {
  const double theta = (g(q, q) - g(p, p)) / (2 * g(p, q));
  const double t = (theta < 0 ? -1 : 1) / (std::abs(theta) + std::sqrt(theta * theta + 1));
  const double c = 1 / std::sqrt(t * t + 1), s = t * c;
  const auto turn = [&](double& x, double& y) {
    const double before = x;
    x = c * before - s * y;
    y = s * before + c * y;
  };
  for (std::size_t k = 0; k < g.n; ++k) turn(g(k, p), g(k, q));
  for (std::size_t k = 0; k < g.n; ++k) turn(g(p, k), g(q, k));
  for (std::size_t k = 0; k < g.n; ++k) turn(vectors(k, p), vectors(k, q));
}

/// Eigenvectors of a symmetric matrix, as columns; its diagonal becomes the eigenvalues.
Square eigenvectors(Square& g) {
  Square vectors{g.n};
  for (std::size_t i = 0; i < g.n; ++i) vectors(i, i) = 1;
  double trace = 0;
  for (std::size_t i = 0; i < g.n; ++i) trace += std::abs(g(i, i));
  constexpr int kSweeps = 30;  // it converges quadratically, in six or so
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    double off = 0;
    for (std::size_t p = 0; p < g.n; ++p)
      for (std::size_t q = p + 1; q < g.n; ++q) {
        off += std::abs(g(p, q));
        if (std::abs(g(p, q)) > 1e-18 * trace) rotate(g, vectors, p, q);
      }
    if (off <= 1e-15 * trace) break;
  }
  return vectors;
}

/// Orthonormal rows that span what matters of the rows of `matrix`ᵀ: the left singular directions, [l, N].
TensorView left_directions(const ExecContext& ctx, const TensorView& matrix, std::int64_t count, std::uint64_t seed) {
  constexpr int kMost = 60;
  constexpr double kEnough = 1e-5;
  const TensorView left = ctx.workspace->allocate(DType::F32, {count, matrix.rows()});
  const ArenaScope scope(*ctx.workspace);
  const TensorView right = ctx.workspace->allocate(DType::F32, {count, matrix.cols()});
  Rng rng(seed, std::uint64_t{1} << 62);
  for (float& x : right.span<float>()) x = 2 * rng.uniform() - 1;
  double held = 0;
  for (int i = 0; i < kMost; ++i) {
    orthonormalize_rows(right);
    ops::matmul(ctx, right, matrix, left, {.transpose_b = true});
    orthonormalize_rows(left);
    ops::matmul(ctx, left, matrix, right);
    const double now = ops::sum_of_squares(ctx, right);
    if (now - held <= kEnough * now) break;
    held = now;
  }
  return left;
}

}  // namespace

std::vector<double> low_rank_approximation(const ExecContext& ctx, const TensorView& matrix, const TensorView& b,
                                           const TensorView& a, std::uint64_t seed) {
  const std::int64_t rank = a.rows(), count = std::min({2 * rank + 8, matrix.rows(), matrix.cols()});
  const ArenaScope scope(*ctx.workspace);
  const TensorView left = left_directions(ctx, matrix, count, seed);
  const TensorView part = ctx.workspace->allocate(DType::F32, {count, matrix.cols()});  // what `left` sees of the matrix
  ops::matmul(ctx, left, matrix, part);
  Square gram{static_cast<std::size_t>(count)};
  for (std::size_t i = 0; i < gram.n; ++i)
    for (std::size_t j = 0; j <= i; ++j)
      gram(i, j) = gram(j, i) = dot(part.as<float>() + static_cast<std::int64_t>(i) * part.row_stride,
                                    part.as<float>() + static_cast<std::int64_t>(j) * part.row_stride, part.cols());
  const Square vectors = eigenvectors(gram);
  std::vector<std::size_t> order(gram.n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, [&](std::size_t x, std::size_t y) { return gram(x, x) > gram(y, y); });

  std::vector<double> singular;
  for (std::int64_t r = 0; r < rank; ++r) {
    const std::size_t v = order[static_cast<std::size_t>(r)];
    singular.push_back(std::sqrt(std::max(0.0, gram(v, v))));
    if (singular.back() <= 1e-6 * singular.front()) continue;
    const double root = std::sqrt(singular.back());
    const auto combine = [&](const TensorView& rows, std::int64_t at, double factor) {
      double sum = 0;
      for (std::size_t i = 0; i < gram.n; ++i)
        sum += vectors(i, v) * static_cast<double>(rows.as<float>()[static_cast<std::int64_t>(i) * rows.row_stride + at]);
      return static_cast<float>(sum * factor);
    };
    for (std::int64_t n = 0; n < b.rows(); ++n) b.as<float>()[n * b.row_stride + r] = combine(left, n, root);
    for (std::int64_t k = 0; k < a.cols(); ++k) a.as<float>()[r * a.row_stride + k] = combine(part, k, 1 / root);
  }
  return singular;
}

}  // namespace temper::model
