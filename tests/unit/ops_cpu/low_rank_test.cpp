#include "../ops/harness.h"

namespace temper::ops {
namespace {

using reference::kU32;
using reference::Matrix;
using LowRankTest = BackendTest;

/// A value, and how far a computed one may be from it.
struct Bounded {
  Matrix value, error;
  Bounded(std::int64_t rows, std::int64_t cols) : value(rows, cols), error(rows, cols) {}
};

/// scale · left [M, K] · rightᵀ [N, K] whose left operand is off by `left_error`, summed in f32 and, if asked, rounded.
Bounded product(const Matrix& left, const Matrix& left_error, const Matrix& right, double scale, double rounding) {
  Bounded out(left.rows, right.rows);
  for (std::int64_t i = 0; i < left.rows; ++i)
    for (std::int64_t j = 0; j < right.rows; ++j) {
      double sum = 0, size = 0, inherited = 0;
      for (std::int64_t p = 0; p < left.cols; ++p) {
        sum += left(i, p) * right(j, p);
        size += std::abs(left(i, p) * right(j, p));
        inherited += left_error(i, p) * std::abs(right(j, p));
      }
      out.value(i, j) = scale * sum;
      const double summed = scale * (inherited + static_cast<double>(left.cols + 4) * kU32 * (size + inherited));
      out.error(i, j) = summed + rounding * (std::abs(scale * sum) + summed);
    }
  return out;
}

Matrix transposed(const Matrix& x) {
  Matrix t(x.cols, x.rows);
  for (std::int64_t r = 0; r < x.rows; ++r)
    for (std::int64_t c = 0; c < x.cols; ++c) t(c, r) = x(r, c);
  return t;
}

struct Case {
  std::int64_t rows, in, out, rank;
};

/// What the op leaves in gradients that began as `seed` says.
struct Gradients {
  TestTensor grad_a, grad_b, dyb;

  Gradients(const ExecContext& ctx, const Case& c, const TestTensor& x, const TestTensor& dy, const TestTensor& a,
            const TestTensor& b, double scale, bool with_dyb)
      : grad_a(DType::F32, c.rank, c.in, 5, 0.1, 3),
        grad_b(DType::F32, c.out, c.rank, 6, 0.1, 1),
        dyb(x->dtype, c.rows, c.rank, 7, 0.0, 2) {
    lora_backward(ctx, x, dy, {a, b, grad_a, grad_b, static_cast<float>(scale)}, with_dyb ? &dyb.view() : nullptr);
  }
};

TEST_P(LowRankTest, GradientsEqualTheDefinition) {
  for (const DType dtype : {DType::F32, DType::BF16})
    for (const Case& c : {Case{1, 16, 16, 1}, Case{5, 7, 9, 3}, Case{64, 48, 80, 16}, Case{130, 33, 50, 17},
                          Case{600, 64, 31, 8}, Case{67, 96, 32, 40}})
      for (const std::int64_t padding : {0, 3}) {
        const double scale = 1.5;
        const TestTensor x(dtype, c.rows, c.in, 1, 1.0, padding), dy(dtype, c.rows, c.out, 2, 1.0, padding);
        const TestTensor a(dtype, c.rank, c.in, 3, 0.5, padding), b(dtype, c.out, c.rank, 4, 0.5, padding);
        const Gradients run(ctx_, c, x, dy, a, b, scale, true);
        const double rounding = reference::unit(dtype);
        const Bounded xa = product(x.matrix(), Matrix(c.rows, c.in), a.matrix(), 1.0, rounding);
        const Bounded dyb = product(dy.matrix(), Matrix(c.rows, c.out), transposed(b.matrix()), scale, rounding);
        const std::string what =
            fmt::format("{} rows {} in {} out {} rank {}", dtype_name(dtype), c.rows, c.in, c.out, c.rank);
        expect_close(run.dyb, dyb.value, dyb.error, what + ": dyb");

        Bounded grad_a = product(transposed(dyb.value), transposed(dyb.error), transposed(x.matrix()), 1.0, 0);
        Bounded grad_b = product(transposed(xa.value), transposed(xa.error), transposed(dy.matrix()), scale, 0);
        const auto onto = [&](Matrix& sum, Matrix& error, const TestTensor& before) {
          const Matrix old = before.matrix();
          for (std::size_t i = 0; i < sum.values.size(); ++i) {
            sum.values[i] += old.values[i];
            error.values[i] += 20 * kU32 * (std::abs(sum.values[i]) + std::abs(old.values[i]));  // chunks, and the last sum
          }
        };
        Bounded turned(c.out, c.rank);
        turned.value = transposed(grad_b.value);
        turned.error = transposed(grad_b.error);
        onto(grad_a.value, grad_a.error, TestTensor(DType::F32, c.rank, c.in, 5, 0.1, 3));
        onto(turned.value, turned.error, TestTensor(DType::F32, c.out, c.rank, 6, 0.1, 1));
        expect_close(run.grad_a, grad_a.value, grad_a.error, what + ": grad_a");
        expect_close(run.grad_b, turned.value, turned.error, what + ": grad_b");
      }
}

TEST_P(LowRankTest, ThreadsAndTheWishForDybChangeNoBit) {
  const Case c{1100, 96, 64, 16};
  for (const DType dtype : {DType::F32, DType::BF16}) {
    const TestTensor x(dtype, c.rows, c.in, 1), dy(dtype, c.rows, c.out, 2), a(dtype, c.rank, c.in, 3),
        b(dtype, c.out, c.rank, 4);
    const Gradients alone(ctx_, c, x, dy, a, b, 0.7, true);
    for (const int threads : {1, 2, 3}) {
      const ThreadsScope scope(threads);
      const Gradients run(ctx_, c, x, dy, a, b, 0.7, threads == 2);
      EXPECT_EQ(run.grad_a.bytes(), alone.grad_a.bytes());
      EXPECT_EQ(run.grad_b.bytes(), alone.grad_b.bytes());
    }
  }
}

TEMPER_BACKEND_SUITE(LowRankTest);

}  // namespace
}  // namespace temper::ops
