#include <algorithm>
#include <limits>
#include <numbers>
#include <numeric>

#include "../ops/harness.h"

namespace temper::ops {
namespace {

using reference::Matrix;
using ElementwiseTest = BackendTest;
constexpr DType kActivations[] = {DType::F32, DType::BF16};
constexpr DType kStorage[] = {DType::F32, DType::BF16, DType::F16};

TEST_P(ElementwiseTest, ConvertRoundsAsTheScalarTypesDo) {
  for (const DType from : kStorage)
    for (const DType to : kStorage) {
      const TestTensor in(from, 5, 37, 1, 3.0, 3), out(to, 5, 37, 2, 0.0, 1);
      const double special[] = {0.0,  -0.0,    1e-40,    -6e-8,     1e-7,       65520.0, 65504.0,
                                1e30, -3.4e38, INFINITY, -INFINITY, 1.00390625, 5.9e-5};
      for (std::size_t i = 0; i < std::size(special); ++i) set(in, 1, static_cast<std::int64_t>(i), special[i]);
      convert(ctx_, in, out);
      const TestTensor expected(to, 1, 1, 0);
      for (std::int64_t r = 0; r < 5; ++r)
        for (std::int64_t c = 0; c < 37; ++c) {
          set(expected, 0, 0, get(in, r, c));
          EXPECT_EQ(get(out, r, c), get(expected, 0, 0))
              << dtype_name(from) << " to " << dtype_name(to) << " of " << get(in, r, c);
        }
      set(in, 0, 0, NAN);
      convert(ctx_, in, out);
      EXPECT_TRUE(std::isnan(get(out, 0, 0)));
    }
}

TEST_P(ElementwiseTest, AddScaleZero) {
  for (const DType type : kActivations) {
    const TestTensor a(DType::F32, 3, 21, 1, 1.0, 2), b(type, 3, 21, 2, 1.0, 4), out(DType::F32, 3, 21, 3);
    add(ctx_, a, b, out);
    Matrix expected(3, 21);
    for (std::int64_t i = 0; i < 63; ++i) expected(i / 21, i % 21) = get(a, i / 21, i % 21) + get(b, i / 21, i % 21);
    expect_close(out, expected, 0.0, "add");
    scale(ctx_, a, 0.3f);
    zero(ctx_, b);
    EXPECT_EQ(get(b, 2, 20), 0.0);
  }
  const TestTensor x(DType::F32, 3, 21, 1, 1.0, 2);
  Matrix expected = x.matrix();
  for (double& e : expected.values) e *= static_cast<double>(0.3f);
  scale(ctx_, x, 0.3f);
  expect_close(x, expected, 0.0, "scale");
}

TEST_P(ElementwiseTest, ScaleColumns) {
  for (const DType from : kActivations)
    for (const DType to : kActivations) {
      const TestTensor x(from, 5, 37, 1, 1.0, 3), row(DType::F32, 1, 37, 2), out(to, 5, 37, 3, 0.0, 2);
      Matrix expected(5, 37), error(5, 37);
      for (std::int64_t r = 0; r < 5; ++r)
        for (std::int64_t c = 0; c < 37; ++c) {
          expected(r, c) = get(x, r, c) * get(row, 0, c);
          error(r, c) = 0x1p-24 * std::abs(expected(r, c));  // the product in f32
        }
      scale_columns(ctx_, x, row, out);
      expect_close(out, expected, error, "scale_columns");
    }
}

TEST_P(ElementwiseTest, DropoutIsAFunctionOfCounters) {
  for (const DType type : kActivations) {
    const std::int64_t rows = 70, cols = 150;
    const TestTensor x(type, rows, cols, 1, 1.0, 5), out(type, rows, cols, 2);
    const Dropout draws{0.25f, 9, std::uint64_t{1} << 40, 1000};
    const Matrix before = x.matrix();
    dropout(ctx_, x, draws, out);
    std::int64_t kept = 0;
    Matrix expected(rows, cols);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < cols; ++c) {
        const auto words =
            philox(draws.seed, draws.stream, static_cast<std::uint64_t>(((1000 + r) * 3 + c / 64) * 16 + c % 16));
        if (words[static_cast<std::size_t>(c % 64 / 16)] < std::uint32_t{1} << 30) continue;
        expected(r, c) = before(r, c) / 0.75;
        ++kept;
      }
    // Factor and product are rounded once each.
    Matrix error(rows, cols);
    for (std::size_t i = 0; i < error.values.size(); ++i) error.values[i] = 0x1p-23 * std::abs(expected.values[i]);
    expect_close(out, expected, error, "dropout");
    // Of n draws with p = 1/4, √(n · 3/16) is a standard deviation; five of them.
    const double n = static_cast<double>(rows * cols);
    EXPECT_NEAR(static_cast<double>(kept), 0.75 * n, 5 * std::sqrt(n * 3 / 16));
    dropout(ctx_, x, draws, x);  // in place
    EXPECT_EQ(x.matrix().values, out.matrix().values);
  }
}

TEST_P(ElementwiseTest, RowsAndEmbeddings) {
  const std::int32_t rows[] = {4, 0, 6, 2};
  for (const DType type : kStorage) {
    const TestTensor table(type, 7, 19, 1, 1.0, 3), picked(type, 4, 19, 2), back(type, 7, 19, 3), wide(DType::F32, 4, 19, 4);
    gather_rows(ctx_, table, rows, picked);
    const double untouched = get(back, 1, 5);
    scatter_rows(ctx_, picked, rows, back);
    embedding(ctx_, Weight(table.view()), rows, wide);
    for (std::int64_t i = 0; i < 4; ++i)
      for (std::int64_t c = 0; c < 19; ++c) {
        EXPECT_EQ(get(picked, i, c), get(table, rows[i], c));
        EXPECT_EQ(get(back, rows[i], c), get(table, rows[i], c));
        EXPECT_EQ(get(wide, i, c), get(table, rows[i], c));
      }
    EXPECT_EQ(get(back, 1, 5), untouched);
  }
  const std::int32_t tokens[] = {1, 1, 5, 1};
  const TestTensor dout(DType::F32, 4, 19, 1), dtable(DType::F32, 7, 19, 2);
  Matrix expected = dtable.matrix();
  for (std::int64_t t = 0; t < 4; ++t)
    for (std::int64_t c = 0; c < 19; ++c) expected(tokens[t], c) += get(dout, t, c);
  embedding_backward(ctx_, dout, tokens, dtable);
  expect_close(dtable, expected, 4.0, "embedding_backward", 4.0);
}

TEST_P(ElementwiseTest, RmsNorm) {
  for (const DType type : kActivations)
    for (const std::int64_t cols : {1, 16, 45, 576}) {
      const std::int64_t rows = 131;
      const TestTensor x(DType::F32, rows, cols, 1, 2.0, 3), weight(DType::F32, 1, cols, 2), y(type, rows, cols, 3, 1.0, 1);
      const TestTensor rstd(DType::F32, 1, rows, 4);
      const reference::NormResult expected = reference::rmsnorm(x.matrix(), weight.row(), 1e-5f);
      rmsnorm(ctx_, x, weight, 1e-5f, y, rstd);
      // The mean of squares sums n equal-signed terms over 16 lanes; its relative error halves under the root.
      const double roundings = static_cast<double>(cols) / 16 + 10;
      expect_close(y, expected.y, roundings, "rmsnorm");
      Matrix rstds(1, rows);
      rstds.values = expected.rstd;
      expect_close(rstd, rstds, roundings, "rstd");
    }
}

TEST_P(ElementwiseTest, RmsNormBackward) {
  const std::int64_t rows = 131;
  for (const std::int64_t cols : {16, 45, 576}) {
    const TestTensor x(DType::F32, rows, cols, 1, 2.0, 3), weight(DType::F32, 1, cols, 2), dy(DType::F32, rows, cols, 3);
    const TestTensor dx(DType::F32, rows, cols, 5), dweight(DType::F32, 1, cols, 6), rstd(DType::F32, 1, rows, 4);
    reference::NormGradients expected = reference::rmsnorm_backward(dy.matrix(), x.matrix(), weight.row(), 1e-5f);
    const std::vector<double> stds = reference::rmsnorm(x.matrix(), weight.row(), 1e-5f).rstd;
    for (std::int64_t r = 0; r < rows; ++r) set(rstd, 0, r, stds[static_cast<std::size_t>(r)]);
    const Matrix before = dx.matrix();
    for (std::size_t i = 0; i < before.values.size(); ++i) expected.dx.values[i] += before.values[i];
    Matrix dweights(1, cols);
    for (std::int64_t c = 0; c < cols; ++c)
      dweights(0, c) = get(dweight, 0, c) + expected.dweight[static_cast<std::size_t>(c)];
    rmsnorm_backward(ctx_, dy, x, weight, rstd, dx, &dweight.view());
    // |x̂| is at most sqrt(3) for |x| <= 2 uniform and |dy| <= 1, so every term is below 4; sums over rows have 131 such
    // terms.
    expect_close(dx, expected.dx, static_cast<double>(cols) / 16 + 12, "dx", 4.0);
    expect_close(dweight, dweights, 131.0, "dweight", 131.0 * 2.0);
  }
}

TEST_P(ElementwiseTest, RopeTurnsAndTurnsBack) {
  const std::int64_t heads = 3, rows = 9;
  for (const DType type : kActivations)
    for (const std::int64_t dim : {2, 24, 64}) {
      const TestTensor x(type, rows, heads * dim, 1, 1.0, 6), cosine(DType::F32, 40, dim / 2, 2),
          sine(DType::F32, 40, dim / 2, 3);
      const std::int32_t positions[] = {0, 1, 2, 39, 0, 1, 5, 7, 7};
      const Matrix before = x.matrix();
      for (std::int64_t i = 0; i < 40 * dim / 2; ++i) {
        set(cosine, i / (dim / 2), i % (dim / 2), std::cos(static_cast<double>(i)));
        set(sine, i / (dim / 2), i % (dim / 2), std::sin(static_cast<double>(i)));
      }
      Matrix expected(rows, heads * dim);
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t h = 0; h < heads; ++h)
          for (std::int64_t i = 0; i < dim / 2; ++i) {
            const std::int64_t low = h * dim + i, high = low + dim / 2;
            const double c = get(cosine, positions[r], i), s = get(sine, positions[r], i);
            expected(r, low) = before(r, low) * c - before(r, high) * s;
            expected(r, high) = before(r, high) * c + before(r, low) * s;
          }
      rope(ctx_, x, dim, positions, cosine, sine, false);
      expect_close(x, expected, 3.0, "rope", 1.0);
      rope(ctx_, x, dim, positions, cosine, sine, true);
      const double roundings = 4 * reference::unit(type) / reference::kU32;
      expect_close(x, before, roundings, "rope and back", 1.5);
    }
}

TEST_P(ElementwiseTest, SwiGlu) {
  for (const DType type : kActivations) {
    const TestTensor gate(type, 7, 45, 1, 9.0, 3), up(type, 7, 45, 2, 2.0), dout(type, 7, 45, 3), out(type, 7, 45, 4);
    set(gate, 0, 0, -200.0);
    set(gate, 0, 1, 200.0);
    set(gate, 0, 2, -0.0);
    Matrix y(7, 45), dg(7, 45), du(7, 45);
    for (std::int64_t i = 0; i < 7 * 45; ++i) {
      const std::int64_t r = i / 45, c = i % 45;
      const double g = get(gate, r, c), u = get(up, r, c), d = get(dout, r, c), s = reference::sigmoid(g);
      y(r, c) = g * s * u;
      dg(r, c) = d * u * s * (1 + g * (1 - s));
      du(r, c) = d * g * s;
    }
    glu(ctx_, Gate::Silu, gate, up, out);
    expect_close(out, y, 16.0, "swiglu", 1e-30);
    glu_backward(ctx_, Gate::Silu, gate, up, dout, gate, up);  // in place
    expect_close(gate, dg, 16.0, "dgate", 20.0);               // 1 + g (1 - s) cancels: terms up to |g|·|u|
    expect_close(up, du, 16.0, "dup", 1e-30);
  }
}

TEST_P(ElementwiseTest, GeGlu) {
  const double twice = 2 * std::sqrt(2 / std::numbers::pi), cubic = 0.044715;
  for (const DType type : kActivations) {
    const TestTensor gate(type, 7, 45, 1, 4.0, 3), up(type, 7, 45, 2, 2.0), dout(type, 7, 45, 3), out(type, 7, 45, 4);
    set(gate, 0, 0, -30.0);
    set(gate, 0, 1, 30.0);
    Matrix y(7, 45), dg(7, 45), du(7, 45);
    for (std::int64_t i = 0; i < 7 * 45; ++i) {
      const std::int64_t r = i / 45, c = i % 45;
      const double g = get(gate, r, c), u = get(up, r, c), d = get(dout, r, c);
      const double inner = twice * (g + cubic * g * g * g), slope = twice * (1 + 3 * cubic * g * g);
      const double s = reference::sigmoid(inner);
      y(r, c) = g * s * u;
      dg(r, c) = d * u * s * (1 + g * slope * (1 - s));
      du(r, c) = d * g * s;
    }
    // sigmoid's argument grows to about 2 |g|³ · 0.036 + 1.6 |g| < 40 before s is 0 or 1: that many ulp of it.
    glu(ctx_, Gate::GeluTanh, gate, up, out);
    expect_close(out, y, 16.0 + 4 * 40.0, "geglu", 1e-30);
    glu_backward(ctx_, Gate::GeluTanh, gate, up, dout, gate, up);
    expect_close(gate, dg, 16.0 + 4 * 40.0, "dgate", 8.0);
    expect_close(up, du, 16.0 + 4 * 40.0, "dup", 1e-30);
  }
}

TEST_P(ElementwiseTest, SoftcapAndItsGradient) {
  for (const DType type : kActivations) {
    const TestTensor x(DType::F32, 5, 37, 1, 60.0, 2), grad(type, 5, 37, 2, 1.0, 1);
    Matrix y(5, 37), expected(5, 37);
    for (std::int64_t r = 0; r < 5; ++r)
      for (std::int64_t c = 0; c < 37; ++c) {
        const double t = std::tanh(get(x, r, c) / 30.0);
        y(r, c) = 30.0 * t;
        expected(r, c) = get(grad, r, c) * (1 - t * t);
      }
    softcap(ctx_, x, 30.0f);
    expect_close(x, y, 8.0, "softcap", 30.0);
    softcap_backward(ctx_, x, 30.0f, grad);
    expect_close(grad, expected, 24.0, "softcap gradient", 1.0);
  }
}

TEST_P(ElementwiseTest, RowsAndColumnSums) {
  for (const DType type : kActivations) {
    const std::int64_t rows = 131, cols = 45;
    const TestTensor x(DType::F32, rows, cols, 1, 1.0, 3), row(DType::F32, 1, cols, 2), dy(type, rows, cols, 3, 1.0, 2);
    const TestTensor sums(DType::F32, 1, cols, 4);
    Matrix added = x.matrix(), total = sums.matrix();
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < cols; ++c) {
        added(r, c) += get(row, 0, c);
        total(0, c) += get(dy, r, c);
      }
    add_row(ctx_, x, row);
    expect_close(x, added, 1.0, "row");
    add_column_sums(ctx_, dy, sums);
    expect_close(sums, total, static_cast<double>(rows), "column sums", static_cast<double>(rows));
  }
}

TEST_P(ElementwiseTest, RopeOfAPartOfEachHead) {
  const std::int64_t heads = 2, dim = 20, half = 6, rows = 4;
  const std::int32_t positions[] = {0, 3, 1, 2};
  for (const DType type : kActivations) {
    const TestTensor x(type, rows, heads * dim, 1), cosine(DType::F32, 4, half, 2), sine(DType::F32, 4, half, 3);
    Matrix expected = x.matrix();
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t h = 0; h < heads; ++h)
        for (std::int64_t i = 0; i < half; ++i) {
          const std::int64_t low = h * dim + i, high = low + half;
          const double c = get(cosine, positions[r], i), s = get(sine, positions[r], i);
          expected(r, low) = get(x, r, low) * c - get(x, r, high) * s;
          expected(r, high) = get(x, r, high) * c + get(x, r, low) * s;
        }
    rope(ctx_, x, dim, positions, cosine, sine, false);
    expect_close(x, expected, 3.0, "rope of a part", 1.0);
  }
}

TEST_P(ElementwiseTest, ThreadsDoNotChangeABit) {
  const std::int64_t rows = 700, cols = 576;
  const TestTensor x(DType::F32, rows, cols, 1), weight(DType::F32, 1, cols, 2), dy(DType::F32, rows, cols, 3);
  const TestTensor rstd(DType::F32, 1, rows, 4, 1.0);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i * i % 13);
  std::vector<std::vector<std::byte>> results;
  std::vector<double> sums;
  for (const int threads : {1, 2, 3}) {
    const ThreadsScope scope(threads);
    const TestTensor dx(DType::F32, rows, cols, 5), dweight(DType::F32, 1, cols, 6), dtable(DType::F32, 13, cols, 7);
    rmsnorm_backward(ctx_, dy, x, weight, rstd, dx, &dweight.view());
    embedding_backward(ctx_, dy, tokens, dtable);
    results.push_back(dx.bytes());
    for (const auto& more : {dweight.bytes(), dtable.bytes()})
      results.back().insert(results.back().end(), more.begin(), more.end());
    sums.push_back(sum_of_squares(ctx_, x));
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
  EXPECT_EQ(sums[0], sums[1]);
  EXPECT_EQ(sums[0], sums[2]);
}

TEMPER_BACKEND_SUITE(ElementwiseTest);

}  // namespace
}  // namespace temper::ops
