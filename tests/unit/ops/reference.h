// The operations defined once more, in double, element by element: what every backend is measured against. Next to a value
// stands the bound that rounding allows a float implementation, from unit round-offs, lengths of sums and magnitudes.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "ops/ops.h"

namespace temper::ops::reference {

inline constexpr double kU32 = 0x1p-24;  ///< Unit round-off of f32.

/// Unit round-off of a dtype.
inline double unit(DType dtype) { return dtype == DType::BF16 ? 0x1p-8 : dtype == DType::F16 ? 0x1p-11 : kU32; }

/// A dense matrix of doubles.
struct Matrix {
  std::int64_t rows = 0, cols = 0;
  std::vector<double> values;

  Matrix() = default;
  Matrix(std::int64_t r, std::int64_t c) : rows(r), cols(c), values(static_cast<std::size_t>(r * c), 0.0) {}
  double& operator()(std::int64_t r, std::int64_t c) { return values[static_cast<std::size_t>(r * cols + c)]; }
  double operator()(std::int64_t r, std::int64_t c) const { return values[static_cast<std::size_t>(r * cols + c)]; }
};

/// A result and how far from it an f32 computation may end, before the result is rounded to its own dtype.
struct Bounded {
  Matrix value, error;
  Bounded(std::int64_t r, std::int64_t c) : value(r, c), error(r, c) {}
};

inline Bounded matmul(const Matrix& a, const Matrix& b, const Matrix& c, const MatmulOptions& o) {
  Bounded out(c.rows, c.cols);
  const std::int64_t depth = o.transpose_a ? a.rows : a.cols;
  for (std::int64_t i = 0; i < c.rows; ++i)
    for (std::int64_t j = 0; j < c.cols; ++j) {
      double sum = 0, magnitude = 0;
      for (std::int64_t k = 0; k < depth; ++k) {
        const double product = (o.transpose_a ? a(k, i) : a(i, k)) * (o.transpose_b ? b(j, k) : b(k, j));
        sum += product;
        magnitude += std::abs(product);
      }
      const double before = o.accumulate ? c(i, j) : 0.0;
      out.value(i, j) = before + o.alpha * sum;
      out.error(i, j) = kU32 * (static_cast<double>(depth + 3) * std::abs(o.alpha) * magnitude + std::abs(before));
    }
  return out;
}

inline double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

struct NormResult {
  Matrix y;
  std::vector<double> rstd;
};

inline NormResult rmsnorm(const Matrix& x, const std::vector<double>& weight, double eps) {
  NormResult out{Matrix(x.rows, x.cols), {}};
  for (std::int64_t r = 0; r < x.rows; ++r) {
    double squares = 0;
    for (std::int64_t c = 0; c < x.cols; ++c) squares += x(r, c) * x(r, c);
    out.rstd.push_back(1.0 / std::sqrt(squares / static_cast<double>(x.cols) + eps));
    for (std::int64_t c = 0; c < x.cols; ++c) out.y(r, c) = x(r, c) * out.rstd.back() * weight[static_cast<std::size_t>(c)];
  }
  return out;
}

struct NormGradients {
  Matrix dx;
  std::vector<double> dweight;
};

inline NormGradients rmsnorm_backward(const Matrix& dy, const Matrix& x, const std::vector<double>& weight, double eps) {
  const std::vector<double> rstd = rmsnorm(x, weight, eps).rstd;
  NormGradients out{Matrix(x.rows, x.cols), std::vector<double>(weight.size(), 0.0)};
  for (std::int64_t r = 0; r < x.rows; ++r) {
    const double s = rstd[static_cast<std::size_t>(r)];
    double product = 0;
    for (std::int64_t c = 0; c < x.cols; ++c) product += dy(r, c) * weight[static_cast<std::size_t>(c)] * x(r, c);
    for (std::int64_t c = 0; c < x.cols; ++c) {
      out.dx(r, c) =
          s * (dy(r, c) * weight[static_cast<std::size_t>(c)] - x(r, c) * s * s * product / static_cast<double>(x.cols));
      out.dweight[static_cast<std::size_t>(c)] += dy(r, c) * x(r, c) * s;
    }
  }
  return out;
}

/// Attention: the probabilities are recomputed where needed, by the definition.
struct Attention {
  const Matrix &q, &k, &v;
  std::span<const AttentionSpan> spans;
  AttentionShape shape;
  double rounding = 0;  ///< Relative, of probabilities and their gradients before they are multiplied.

  std::int64_t kv_head(std::int64_t head) const { return head / (shape.heads / shape.kv_heads); }

  /// Keys that query row i of a span sees: [first, end).
  std::pair<std::int64_t, std::int64_t> visible(const AttentionSpan& s, std::int64_t i) const {
    const std::int64_t end = s.key_end - (s.query_end - 1 - i);
    return {shape.window > 0 ? std::max<std::int64_t>(s.key_begin, end - shape.window) : s.key_begin, end};
  }
  double score(std::int64_t i, std::int64_t j, std::int64_t head, bool magnitude = false) const {
    double sum = 0;
    for (std::int64_t c = 0; c < shape.head_dim; ++c) {
      const double product = q(i, head * shape.head_dim + c) * k(j, kv_head(head) * shape.head_dim + c);
      sum += magnitude ? std::abs(product) : product;
    }
    const double scaled = sum * shape.scale;
    return shape.softcap > 0 && !magnitude ? shape.softcap * std::tanh(scaled / shape.softcap) : scaled;
  }
  /// How far an f32 score may be off: a sum of head_dim products, then tanh within a few ulp of 1, times the cap.
  double score_error(double magnitude) const {
    return kU32 * (static_cast<double>(shape.head_dim + 4) * magnitude + 8 * static_cast<double>(shape.softcap));
  }

  struct Result {
    Bounded out, lse;
  };
  Result forward() const {
    const std::int64_t d = shape.head_dim;
    Result r{Bounded(q.rows, q.cols), Bounded(q.rows, shape.heads)};
    for (const AttentionSpan& s : spans)
      for (std::int64_t i = s.query_begin; i < s.query_end; ++i)
        for (std::int64_t h = 0; h < shape.heads; ++h) {
          const auto [first, end] = visible(s, i);
          double total = 0, largest_score = 0, top = score(i, first, h);
          for (std::int64_t j = first; j < end; ++j) top = std::max(top, score(i, j, h));
          for (std::int64_t j = first; j < end; ++j) {
            total += std::exp(score(i, j, h) - top);
            largest_score = std::max(largest_score, score(i, j, h, true));
          }
          const double lse = top + std::log(total), n = static_cast<double>(end - first);
          // A score is off by at most (d + 3) u Σ|q·k|; a probability by that factor twice, exp's few ulp, and the sum.
          const double relative = 2 * score_error(largest_score) + kU32 * (2 * n + 16);
          r.lse.value(i, h) = lse;
          r.lse.error(i, h) = relative + 2 * kU32 * std::abs(lse);
          for (std::int64_t c = 0; c < d; ++c)
            for (std::int64_t j = first; j < end; ++j) {
              const double term = std::exp(score(i, j, h) - lse) * v(j, kv_head(h) * d + c);
              r.out.value(i, h * d + c) += term;
              r.out.error(i, h * d + c) += (relative + rounding * (1 + relative)) * std::abs(term);
            }
        }
    return r;
  }

  struct Gradients {
    Bounded dq, dk, dv;
  };
  /// With `out` and `lse` as the forward pass stored them.
  Gradients backward(const Matrix& out, const Matrix& lse, const Matrix& dout) const {
    const std::int64_t d = shape.head_dim;
    Gradients g{Bounded(q.rows, q.cols), Bounded(k.rows, k.cols), Bounded(v.rows, v.cols)};
    for (const AttentionSpan& s : spans)
      for (std::int64_t h = 0; h < shape.heads; ++h)
        for (std::int64_t i = s.query_begin; i < s.query_end; ++i) {
          const auto [first, end] = visible(s, i);
          double delta = 0, delta_magnitude = 0;
          for (std::int64_t c = h * d; c < (h + 1) * d; ++c) {
            delta += out(i, c) * dout(i, c);
            delta_magnitude += std::abs(out(i, c) * dout(i, c));
          }
          for (std::int64_t j = first; j < end; ++j) add_pair(g, out, lse, dout, h, i, j, delta, delta_magnitude);
        }
    return g;
  }

 private:
  void add_pair(Gradients& g, const Matrix&, const Matrix& lse, const Matrix& dout, std::int64_t h, std::int64_t i,
                std::int64_t j, double delta, double delta_magnitude) const {
    const std::int64_t d = shape.head_dim, kv = kv_head(h) * d;
    const double length = static_cast<double>(d + 4);
    const double p = std::exp(score(i, j, h) - lse(i, h));
    const double off = score_error(score(i, j, h, true));
    const double relative = off + kU32 * (2 * std::abs(lse(i, h)) + 16);
    double dp = 0, dp_magnitude = 0;
    for (std::int64_t c = 0; c < d; ++c) {
      const double product = dout(i, h * d + c) * v(j, kv + c);
      dp += product;
      dp_magnitude += std::abs(product);
    }
    const double bent = shape.softcap > 0 ? score(i, j, h) / shape.softcap : 0.0, slope = 1 - bent * bent;
    const double slope_error = shape.softcap > 0 ? 2 * off / shape.softcap + 4 * kU32 : 0.0;
    const double ds = p * (dp - delta) * shape.scale * slope;
    const double ds_exact =
        p * shape.scale *
        ((relative + slope_error) * std::abs(dp - delta) + kU32 * length * (dp_magnitude + delta_magnitude));
    const double ds_error = ds_exact + rounding * (std::abs(ds) + ds_exact);
    // Sums run over at most all queries of all heads of a group, or all keys.
    const double sum = kU32 * static_cast<double>(q.rows * (shape.heads / shape.kv_heads) + k.rows);
    for (std::int64_t c = 0; c < d; ++c) {
      const double qc = q(i, h * d + c), kc = k(j, kv + c), gc = dout(i, h * d + c);
      g.dq.value(i, h * d + c) += ds * kc;
      g.dq.error(i, h * d + c) += (ds_error + sum * std::abs(ds)) * std::abs(kc);
      g.dk.value(j, kv + c) += ds * qc;
      g.dk.error(j, kv + c) += (ds_error + sum * std::abs(ds)) * std::abs(qc);
      g.dv.value(j, kv + c) += p * gc;
      g.dv.error(j, kv + c) += p * (relative + sum + rounding * (1 + relative)) * std::abs(gc);
    }
  }
};

/// nll and, per element, the gradient of Σ nll · grad_scale with respect to logits.
inline std::vector<double> cross_entropy(const Matrix& logits, std::span<const std::int32_t> targets, double grad_scale,
                                         Matrix* grad) {
  std::vector<double> nll;
  for (std::int64_t r = 0; r < logits.rows; ++r) {
    double largest = logits(r, 0), total = 0;
    for (std::int64_t c = 0; c < logits.cols; ++c) largest = std::max(largest, logits(r, c));
    for (std::int64_t c = 0; c < logits.cols; ++c) total += std::exp(logits(r, c) - largest);
    const std::int64_t target = targets[static_cast<std::size_t>(r)];
    nll.push_back(std::log(total) + largest - logits(r, target));
    if (!grad) continue;
    for (std::int64_t c = 0; c < logits.cols; ++c)
      (*grad)(r, c) = (std::exp(logits(r, c) - largest) / total - (c == target ? 1.0 : 0.0)) * grad_scale;
  }
  return nll;
}

/// KL(teacher ‖ student) of the softmaxes at logits / temperature, row by row; with `grad`, += that of scale · τ² · Σ KL.
inline std::vector<double> divergence(const Matrix& student, const Matrix& teacher, double temperature, double scale,
                                      Matrix* grad) {
  const auto log_softmax = [&](const Matrix& logits, std::int64_t r) {
    std::vector<double> out;
    double largest = logits(r, 0), total = 0;
    for (std::int64_t c = 0; c < logits.cols; ++c) largest = std::max(largest, logits(r, c));
    for (std::int64_t c = 0; c < logits.cols; ++c) total += std::exp((logits(r, c) - largest) / temperature);
    for (std::int64_t c = 0; c < logits.cols; ++c) out.push_back((logits(r, c) - largest) / temperature - std::log(total));
    return out;
  };
  std::vector<double> kl;
  for (std::int64_t r = 0; r < student.rows; ++r) {
    const std::vector<double> q = log_softmax(student, r), p = log_softmax(teacher, r);
    kl.push_back(0);
    for (std::size_t c = 0; c < p.size(); ++c) {
      kl.back() += std::exp(p[c]) * (p[c] - q[c]);
      if (grad) (*grad)(r, static_cast<std::int64_t>(c)) += scale * temperature * (std::exp(q[c]) - std::exp(p[c]));
    }
  }
  return kl;
}

}  // namespace temper::ops::reference
