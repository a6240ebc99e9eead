#include "eval/statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/rng.h"

namespace temper::eval {
namespace {

std::size_t check_columns(std::span<const Column> columns, const BootstrapOptions& options) {
  if (columns.empty() || columns[0].empty()) throw LogicError("bootstrap: no rows");
  for (const Column& column : columns)
    if (column.size() != columns[0].size())
      throw LogicError("bootstrap: columns of {} and {} rows", columns[0].size(), column.size());
  if (options.resamples < 1) throw LogicError("bootstrap: expected at least 1 resample, found {}", options.resamples);
  return columns[0].size();
}

}  // namespace

double quantile(std::span<const double> sorted, double q) {
  const double position = q * static_cast<double>(sorted.size() - 1);
  const std::size_t below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Estimate bootstrap(std::span<const Column> columns, const std::function<double(std::span<const double> sums)>& statistic,
                   const BootstrapOptions& options) {
  const std::size_t rows = check_columns(columns, options);
  std::vector<double> sums(columns.size(), 0.0);
  for (std::size_t c = 0; c < columns.size(); ++c)
    for (const double x : columns[c]) sums[c] += x;
  Estimate estimate;
  estimate.value = statistic(sums);

  std::vector<double> draws;
  draws.reserve(static_cast<std::size_t>(options.resamples));
  for (std::int64_t d = 0; d < options.resamples; ++d) {
    Rng rng(options.seed, static_cast<std::uint64_t>(d));
    std::ranges::fill(sums, 0.0);
    for (std::size_t i = 0; i < rows; ++i) {
      const std::size_t row = rng.below(static_cast<std::uint32_t>(rows));
      for (std::size_t c = 0; c < columns.size(); ++c) sums[c] += columns[c][row];
    }
    if (const double value = statistic(sums); std::isfinite(value)) draws.push_back(value);
  }
  if (draws.empty()) {
    estimate.low = estimate.high = std::numeric_limits<double>::quiet_NaN();
    return estimate;
  }
  std::ranges::sort(draws);
  estimate.low = quantile(draws, 0.025);
  estimate.high = quantile(draws, 0.975);
  return estimate;
}

Estimate bootstrap_ratio(Column numerator, Column denominator, const BootstrapOptions& options) {
  const std::array columns = {numerator, denominator};
  return bootstrap(
      columns, [](std::span<const double> sums) { return sums[0] / sums[1]; }, options);
}

Estimate bootstrap_difference(Column a, Column b, Column denominator, const BootstrapOptions& options) {
  const std::array columns = {a, b, denominator};
  return bootstrap(
      columns, [](std::span<const double> sums) { return (sums[0] - sums[1]) / sums[2]; }, options);
}

Estimate bootstrap_recovered(Column tuned, Column ptq, Column qat, const BootstrapOptions& options) {
  const std::array columns = {tuned, ptq, qat};
  return bootstrap(
      columns, [](std::span<const double> sums) { return (sums[1] - sums[2]) / (sums[1] - sums[0]); }, options);
}

}  // namespace temper::eval
