// Bootstrap intervals for figures that are sums over rows: rows (documents) are drawn again with replacement, since the
// tokens of one row are not independent. Percentile method (Efron & Tibshirani 1993, chapter 13).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace temper::eval {

/// A figure with its 95 % confidence interval.
struct Estimate {
  double value = 0, low = 0, high = 0;
};

struct BootstrapOptions {
  std::int64_t resamples = 1000;  ///< At least 1.
  std::uint64_t seed = 0;
};

/// One additive quantity, one value per row.
using Column = std::span<const double>;

/// value = statistic(sums of the columns); the interval from `resamples` draws of n rows out of n. All columns have n > 0
/// rows and are drawn jointly: a draw takes the same rows of each, so that models scored on the same rows are compared
/// pairwise. The rows of draw d depend only on (seed, d, n). Draws whose statistic is not finite are left out; the interval
/// is NaN if none remains. Throws LogicError for columns of different or no length.
Estimate bootstrap(std::span<const Column> columns, const std::function<double(std::span<const double> sums)>& statistic,
                   const BootstrapOptions& options);

/// Σ numerator / Σ denominator: NLL per token, accuracy.
Estimate bootstrap_ratio(Column numerator, Column denominator, const BootstrapOptions& options);

/// (Σ a − Σ b) / Σ denominator, paired.
Estimate bootstrap_difference(Column a, Column b, Column denominator, const BootstrapOptions& options);

/// Share of the loss due to quantization that training won back: (Σ ptq − Σ qat) / (Σ ptq − Σ tuned), paired.
Estimate bootstrap_recovered(Column tuned, Column ptq, Column qat, const BootstrapOptions& options);

/// The q-quantile (0 ≤ q ≤ 1) of sorted values, linear between neighbours (Hyndman & Fan 1996, type 7); values must not be
/// empty.
double quantile(std::span<const double> sorted, double q);

}  // namespace temper::eval
