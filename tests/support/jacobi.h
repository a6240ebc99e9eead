// Singular values of a small matrix by the definition, for tests: one-sided Jacobi in double (Hestenes 1958).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <vector>

namespace temper::testing {

/// Of a matrix of `cols` columns, row by row; falling.
inline std::vector<double> singular_values(std::vector<double> m, std::size_t cols) {
  const std::size_t rows = m.size() / cols;
  const auto dot = [&](std::size_t p, std::size_t q) {
    double sum = 0;
    for (std::size_t r = 0; r < rows; ++r) sum += m[r * cols + p] * m[r * cols + q];
    return sum;
  };
  for (int sweep = 0; sweep < 60; ++sweep) {
    double worst = 0;
    for (std::size_t p = 0; p < cols; ++p)
      for (std::size_t q = p + 1; q < cols; ++q) {
        const double a = dot(p, p), b = dot(q, q), c = dot(p, q);
        if (a == 0 || b == 0 || c == 0) continue;
        worst = std::max(worst, std::abs(c) / std::sqrt(a * b));
        const double zeta = (b - a) / (2 * c);
        const double t = (zeta < 0 ? -1 : 1) / (std::abs(zeta) + std::sqrt(1 + zeta * zeta));
        const double cosine = 1 / std::sqrt(1 + t * t), sine = cosine * t;
        for (std::size_t r = 0; r < rows; ++r) {
          double &x = m[r * cols + p], &y = m[r * cols + q];
          const double before = x;
          x = cosine * before - sine * y;
          y = sine * before + cosine * y;
        }
      }
    if (worst < 1e-14) break;
  }
  std::vector<double> values;
  for (std::size_t c = 0; c < cols; ++c) values.push_back(std::sqrt(dot(c, c)));
  std::sort(values.begin(), values.end(), std::greater());
  return values;
}

/// Σ of the squares from the r-th on: how far the nearest matrix of rank r is, squared.
inline double squares_from(const std::vector<double>& values, std::size_t r) {
  double sum = 0;
  for (std::size_t i = r; i < values.size(); ++i) sum += values[i] * values[i];
  return sum;
}

}  // namespace temper::testing
