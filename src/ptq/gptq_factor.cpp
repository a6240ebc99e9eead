#include "ptq/gptq_factor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "base/parallel.h"

namespace temper::ptq {
namespace {

constexpr std::int64_t kTile = 64;  // columns that are factored together
constexpr int kRows = 4;            // rows whose sums are formed side by side

typedef double Lanes __attribute__((vector_size(64), aligned(8), may_alias));

double sum_of(const Lanes& lanes) {
  double sum = 0.0;
  for (int i = 0; i < 8; ++i) sum += lanes[i];
  return sum;
}

/// a[i][j] -= Σ_{k < depth} a[i][k]·a[j][k] for kRows rows i from `rows` on (fewer: `count`) and one row j.
void subtract_products(double* const* rows, int count, const double* other, std::int64_t depth, std::int64_t j) {
  Lanes sums[kRows] = {};
  std::int64_t k = 0;
  for (; k + 8 <= depth; k += 8) {
    const auto& b = *reinterpret_cast<const Lanes*>(other + k);
    for (int r = 0; r < count; ++r) sums[r] += *reinterpret_cast<const Lanes*>(rows[r] + k) * b;
  }
  for (int r = 0; r < count; ++r) {
    double sum = sum_of(sums[r]);
    for (std::int64_t rest = k; rest < depth; ++rest) sum += rows[r][rest] * other[rest];
    rows[r][j] -= sum;
  }
}

/// Lower Cholesky factor in place, rows of `n`; the upper triangle is left as it is. False where the matrix is not positive
/// definite.
bool cholesky(std::vector<double>& a, std::int64_t n) {
  const auto row = [&](std::int64_t i) { return a.data() + i * n; };
  for (std::int64_t begin = 0; begin < n; begin += kTile) {
    const std::int64_t end = std::min(n, begin + kTile);
    parallel_for((n - begin + kRows - 1) / kRows, 4, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = begin + first * kRows; i < std::min(n, begin + last * kRows); i += kRows) {
        double* rows[kRows] = {};
        const int count = static_cast<int>(std::min<std::int64_t>(kRows, n - i));
        for (int r = 0; r < count; ++r) rows[r] = row(i + r);
        for (std::int64_t j = begin; j < end; ++j) subtract_products(rows, count, row(j), begin, j);
      }
    });
    for (std::int64_t j = begin; j < end; ++j) {
      double* at = row(j);
      for (std::int64_t c = begin; c <= j; ++c) {
        double sum = at[c];
        for (std::int64_t k = begin; k < c; ++k) sum -= at[k] * row(c)[k];
        if (c < j) {
          at[c] = sum / row(c)[c];
        } else {
          if (!(sum > 0.0)) return false;
          at[c] = std::sqrt(sum);
        }
      }
    }
    parallel_for(n - end, 16, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = end + first; i < end + last; ++i)
        for (std::int64_t c = begin; c < end; ++c) {
          double sum = row(i)[c];
          for (std::int64_t k = begin; k < c; ++k) sum -= row(i)[k] * row(c)[k];
          row(i)[c] = sum / row(c)[c];
        }
    });
  }
  return true;
}

}  // namespace

ErrorFactor factor_hessian(const TensorView& hessian, double damping, bool act_order) {
  const std::int64_t n = hessian.cols();
  if (hessian.rows() != n || n == 0) throw LogicError("GPTQ: a Hessian is square, found {}", hessian.shape.str());
  const auto* h = hessian.as<const float>();
  const auto at = [&](std::int64_t i, std::int64_t j) {
    return static_cast<double>(h[std::max(i, j) * hessian.row_stride + std::min(i, j)]);
  };
  double trace = 0.0;
  for (std::int64_t i = 0; i < n; ++i) trace += at(i, i);
  if (!std::isfinite(trace)) throw Diverged("GPTQ: the inputs of a linear are not finite");

  ErrorFactor factor;
  factor.columns.resize(static_cast<std::size_t>(n));
  std::iota(factor.columns.begin(), factor.columns.end(), 0);
  if (act_order)
    std::ranges::stable_sort(factor.columns, [&](std::int64_t a, std::int64_t b) { return at(a, a) > at(b, b); });

  // The upper factor is the lower one of the matrix turned about, columns from last to first.
  std::vector<double> lower(static_cast<std::size_t>(n * n));
  const auto turned = [&](std::int64_t p) { return factor.columns[static_cast<std::size_t>(n - 1 - p)]; };
  double lambda = trace > 0.0 ? damping * trace / static_cast<double>(n) : 1.0;
  for (int attempt = 0;; ++attempt) {
    parallel_for(n, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        for (std::int64_t j = 0; j <= i; ++j) lower[i * n + j] = at(turned(i), turned(j)) + (i == j ? lambda : 0.0);
    });
    if (cholesky(lower, n)) break;
    if (attempt == 8 || !(trace > 0.0)) throw Diverged("GPTQ: the Hessian of a linear's inputs cannot be factored");
    lambda = std::max(lambda * 10.0, 1e-8 * trace / static_cast<double>(n));
  }

  factor.upper = Tensor(DType::F32, {n, n}, /*zero=*/true);
  factor.diagonal.resize(static_cast<std::size_t>(n));
  float* upper = factor.upper->as<float>();
  parallel_for(n, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      const std::int64_t i = n - 1 - p;
      factor.diagonal[static_cast<std::size_t>(p)] = lower[i * n + i] * lower[i * n + i];
      for (std::int64_t q = p + 1; q < n; ++q) {
        const std::int64_t j = n - 1 - q;
        upper[p * n + q] = static_cast<float>(lower[i * n + j] / lower[j * n + j]);
      }
    }
  });
  return factor;
}

}  // namespace temper::ptq
