#include "ptq/rotate.h"

#include <cmath>

#include "base/error.h"
#include "base/parallel.h"
#include "base/rng.h"

namespace temper::ptq {
namespace {

using model::Linear;

bool is_prime(std::int64_t q) {
  for (std::int64_t d = 2; d * d <= q; ++d)
    if (q % d == 0) return false;
  return q > 1;
}

/// 1 where x is a square modulo q, -1 where it is none, 0 for 0.
std::vector<int> quadratic_character(std::int64_t q) {
  std::vector<int> chi(static_cast<std::size_t>(q), -1);
  chi[0] = 0;
  for (std::int64_t x = 1; x < q; ++x) chi[static_cast<std::size_t>(x * x % q)] = 1;
  return chi;
}

/// Paley I: I + S, S skew, bordered by ones; Paley II: the symmetric conference matrix C with each 0 → [1 -1; -1 -1] and
/// each ±1 → ±[1 1; 1 -1].
std::vector<signed char> paley_first(std::int64_t n) {
  const auto chi = quadratic_character(n - 1);
  std::vector<signed char> h(static_cast<std::size_t>(n * n), 1);
  for (std::int64_t i = 1; i < n; ++i) {
    h[i * n] = -1;
    for (std::int64_t j = 1; j < n; ++j)
      h[i * n + j] = static_cast<signed char>(i == j ? 1 : chi[(j - i + n - 1) % (n - 1)]);
  }
  return h;
}

std::vector<signed char> paley_second(std::int64_t n) {
  const std::int64_t half = n / 2, q = half - 1;
  const auto chi = quadratic_character(q);
  std::vector<signed char> h(static_cast<std::size_t>(n * n));
  for (std::int64_t i = 0; i < half; ++i)
    for (std::int64_t j = 0; j < half; ++j) {
      const int c = i == j ? 0 : i == 0 || j == 0 ? 1 : chi[(j - i + q) % q];
      const int zero[4] = {1, -1, -1, -1}, one[4] = {1, 1, 1, -1};
      for (int k = 0; k < 4; ++k)
        h[(2 * i + k / 2) * n + 2 * j + k % 2] = static_cast<signed char>(c == 0 ? zero[k] : c * one[k]);
    }
  return h;
}

/// x[0 … n) = x · H for Sylvester's Hadamard matrix of a power of two.
void sylvester(double* x, std::int64_t n) {
  for (std::int64_t half = 1; half < n; half *= 2)
    for (std::int64_t begin = 0; begin < n; begin += 2 * half)
      for (std::int64_t i = begin; i < begin + half; ++i) {
        const double a = x[i], b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
}

void rotate_rows(const TensorView& matrix, const Rotation& rotation) {
  const auto n = static_cast<std::size_t>(rotation.size());
  parallel_for(matrix.rows(), 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      for (std::int64_t c = 0; c < matrix.cols(); c += rotation.size())
        rotation.apply({matrix.as<float>() + r * matrix.row_stride + c, n});
  });
}

/// Every column, in parts of the rotation's size.
void rotate_columns(const TensorView& matrix, const Rotation& rotation) {
  const std::int64_t n = rotation.size();
  parallel_for(matrix.cols(), 8, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> column(static_cast<std::size_t>(n));
    for (std::int64_t c = begin; c < end; ++c)
      for (std::int64_t first = 0; first < matrix.rows(); first += n) {
        float* at = matrix.as<float>() + first * matrix.row_stride + c;
        for (std::int64_t i = 0; i < n; ++i) column[static_cast<std::size_t>(i)] = at[i * matrix.row_stride];
        rotation.apply(column);
        for (std::int64_t i = 0; i < n; ++i) at[i * matrix.row_stride] = column[static_cast<std::size_t>(i)];
      }
  });
}

}  // namespace

std::optional<std::vector<signed char>> paley(std::int64_t n) {
  if (n == 1) return std::vector<signed char>{1};
  if (n == 2) return std::vector<signed char>{1, 1, 1, -1};
  if (n % 4 != 0) return std::nullopt;
  if (is_prime(n - 1)) return paley_first(n);
  if (is_prime(n / 2 - 1) && (n / 2 - 1) % 4 == 1) return paley_second(n);
  return std::nullopt;
}

Rotation::Rotation(std::int64_t n, std::uint64_t seed, std::uint64_t stream) {
  // The smallest order that leaves a power of two.
  std::int64_t order = n;
  while (order > 0 && order % 2 == 0) order /= 2;
  std::optional<std::vector<signed char>> base;
  for (; order > 0 && order <= n && n % order == 0; order *= 2)
    if ((base = paley(order))) break;
  if (!base)
    throw Unsupported(
        "rotate: no Hadamard matrix of order {} is known to temper (it makes those of 2^k times q + 1 or 2q + 2 for primes "
        "q); use another method for this model, such as awq or gptq",
        n);
  base_order_ = order;
  base_ = std::move(*base);
  Rng rng(seed, stream);
  const double scale = 1.0 / std::sqrt(static_cast<double>(n));
  for (std::int64_t i = 0; i < n; ++i) signs_.push_back(rng.next() & 1 ? scale : -scale);
}

void Rotation::apply(std::span<float> row) const {
  const std::int64_t n = size(), power = n / base_order_;
  if (static_cast<std::int64_t>(row.size()) != n) throw LogicError("rotation of {} applied to {}", n, row.size());
  std::vector<double> x(row.size()), y(row.size());
  for (std::size_t i = 0; i < row.size(); ++i) x[i] = row[i] * signs_[i];
  for (std::int64_t i = 0; i < base_order_; ++i) sylvester(x.data() + i * power, power);
  for (std::int64_t i = 0; i < base_order_; ++i)
    for (std::int64_t j = 0; j < base_order_; ++j) {
      const double sign = base_[i * base_order_ + j];
      for (std::int64_t k = 0; k < power; ++k) y[j * power + k] += sign * x[i * power + k];
    }
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(y[i]);
}

void rotate(FoldedModel& model, std::uint64_t seed) {
  for (const model::BlockVector vector :
       {model::BlockVector::PostAttentionNorm, model::BlockVector::PostMlpNorm, model::BlockVector::VBias})
    if (const auto index = model.table().vector(0, vector))
      throw Unsupported("rotate: {} cannot be folded into a matrix; use another method for this model, such as awq or gptq",
                        model.table()[*index].hf_name);
  const Rotation residual(model.arch().hidden_size, seed, 0);
  model.fold_norms();
  rotate_rows(model.tensor(model.table().embedding()), residual);
  rotate_rows(model.tensor(model.table().head()), residual);
  for (int layer = 0; layer < model.table().layers(); ++layer) {
    for (const Linear l : {Linear::Q, Linear::K, Linear::V, Linear::Gate, Linear::Up})
      rotate_rows(model.linear(layer, l), residual);
    for (const Linear l : {Linear::O, Linear::Down}) rotate_columns(model.linear(layer, l), residual);
    // Values of every head turn alike, and o turns them back.
    const Rotation values(model.arch().head_dim, seed, 1 + static_cast<std::uint64_t>(layer));
    rotate_columns(model.linear(layer, Linear::V), values);
    rotate_rows(model.linear(layer, Linear::O), values);
  }
}

}  // namespace temper::ptq
