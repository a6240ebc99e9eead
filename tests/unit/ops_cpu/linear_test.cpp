#include <cmath>
#include <limits>

#include "../ops/harness.h"
#include "quant/activations.h"

namespace temper::ops {
namespace {

using LinearTest = BackendTest;

/// A weight in codes, and the operand that stands for it.
struct Coded {
  std::vector<std::byte> bytes;
  quant::EncodedView view;
  TestTensor operand;

  Coded(const char* format, std::int64_t rows, std::int64_t cols, DType type, std::uint64_t seed)
      : operand(type, rows, cols, seed) {
    const quant::Codec& codec = *quant::find_codec(format);
    const TestTensor values(DType::F32, rows, cols, seed);
    bytes.resize(static_cast<std::size_t>(rows) * codec.row_bytes(cols));
    codec.encode_rows(values, bytes);
    view = {&codec, rows, cols, bytes};
    codec.decode_rows(bytes, operand);
  }
};

/// Parts in codes and dense side by side, few rows and many, equal the product with the operand.
TEST_P(LinearTest, EqualsTheProduct) {
  const std::int64_t k = 192;
  for (const DType type : {DType::BF16, DType::F32})
    for (const std::int64_t m : {1, 3, 8, 9, 40})
      for (const bool accumulate : {false, true}) {
        const Coded first("q4_0", 70, k, type, 1), second("q8_0", 33, k, type, 2);
        const TestTensor third(type, 21, k, 3), x(type, m, k, 4);
        const TestTensor a(DType::F32, m, 70, 5), b(DType::F32, m, 33, 6), c(DType::F32, m, 21, 7);
        const MatmulOptions options{.transpose_b = true, .accumulate = accumulate};
        const auto expected_a = reference::matmul(x.matrix(), first.operand.matrix(), a.matrix(), options);
        const auto expected_b = reference::matmul(x.matrix(), second.operand.matrix(), b.matrix(), options);
        const auto expected_c = reference::matmul(x.matrix(), third.matrix(), c.matrix(), options);
        const TensorView none;
        const std::array<LinearPart, 3> parts{
            LinearPart{Weight(first.view, m > kFewRows ? first.operand.view() : none), a},
            LinearPart{Weight(second.view, m > kFewRows ? second.operand.view() : none), b}, LinearPart{third.view(), c}};
        linear(ctx_, x, parts, accumulate);
        expect_close(a, expected_a.value, expected_a.error, fmt::format("q4_0, {} rows", m));
        expect_close(b, expected_b.value, expected_b.error, fmt::format("q8_0, {} rows", m));
        expect_close(c, expected_c.value, expected_c.error, fmt::format("dense, {} rows", m));
      }
}

TEST_P(LinearTest, ThreadsDoNotChangeABit) {
  const std::int64_t k = 576;
  const Coded first("q4_0", 576, k, DType::BF16, 1), second("q8_0", 192, k, DType::BF16, 2);
  const TestTensor x(DType::BF16, 1, k, 4), dense(DType::BF16, 333, k, 3);
  std::vector<std::vector<std::byte>> found;
  for (const int threads : {1, 2, 3}) {
    const ThreadsScope scope(threads);
    const TestTensor y(DType::F32, 1, 576 + 192 + 333, 5, 0.0);
    const std::array<LinearPart, 3> parts{LinearPart{Weight(first.view), y.view().slice_cols(0, 576)},
                                          LinearPart{Weight(second.view), y.view().slice_cols(576, 768)},
                                          LinearPart{dense.view(), y.view().slice_cols(768, 768 + 333)}};
    linear(ctx_, x, parts);
    found.push_back(y.bytes());
  }
  EXPECT_EQ(found[0], found[1]);
  EXPECT_EQ(found[0], found[2]);
}

/// 8-bit activations: the product of x on the grid of each part's format; dense weights take x as it is.
TEST_P(LinearTest, EightBitActivations) {
  const std::int64_t k = 256;
  ctx_.activations = Activations::Bits8;
  for (const std::int64_t m : {2, 20}) {
    const Coded coded("q4_0", 40, k, DType::F32, 1);
    const TestTensor x(DType::F32, m, k, 4), rounded(DType::F32, m, k, 4), dense(DType::F32, 40, k, 3);
    const TestTensor a(DType::F32, m, 40, 5), b(DType::F32, m, 40, 5);
    quant::round_activations(quant::ActivationGrid::Blocks32, x, rounded);
    const auto expected_a = reference::matmul(rounded.matrix(), coded.operand.matrix(), a.matrix(), {.transpose_b = true});
    const auto expected_b = reference::matmul(x.matrix(), dense.matrix(), b.matrix(), {.transpose_b = true});
    const std::array<LinearPart, 2> parts{LinearPart{Weight(coded.view, coded.operand.view()), a},
                                          LinearPart{dense.view(), b}};
    linear(ctx_, x, parts);
    expect_close(a, expected_a.value, expected_a.error, "in codes");
    expect_close(b, expected_b.value, expected_b.error, "dense");
    const std::vector<std::byte> before = x.bytes();
    round_activations(ctx_, x, input_rounding(ctx_, Weight(dense)), x);
    EXPECT_EQ(x.bytes(), before);
    round_activations(ctx_, x, input_rounding(ctx_, Weight(coded.view)), x);
    EXPECT_EQ(x.bytes(), rounded.bytes());
  }
}

/// Codes alone are enough for integer products, for any number of rows of x; each row's result depends on that row alone,
/// not on how many there are or on the threads; and it is the product of the decoded operands.
TEST_P(LinearTest, IntegerProducts) {
  const std::int64_t k = 256, m = 40;
  ctx_.activations = Activations::Bits8;
  const Coded first("q4_0", 70, k, DType::F32, 1), second("int8-sym", 33, k, DType::F32, 2);
  const TestTensor x(DType::F32, m, k, 4), on_grid(DType::F32, m, k, 4), by_token(DType::F32, m, k, 4);
  Weight per_token(second.view);
  per_token.input = quant::find_codec("int8-asym");
  ASSERT_TRUE(multiplies_integers(ctx_, Weight(first.view)));
  ASSERT_TRUE(multiplies_integers(ctx_, per_token));
  quant::round_activations(quant::ActivationGrid::Blocks32, x, on_grid);
  quant::round_activations(*per_token.input, x, by_token);
  const TestTensor a(DType::F32, m, 70, 5), b(DType::F32, m, 33, 6);
  const MatmulOptions options{.transpose_b = true};
  const auto expected_a = reference::matmul(on_grid.matrix(), first.operand.matrix(), a.matrix(), options);
  const auto expected_b = reference::matmul(by_token.matrix(), second.operand.matrix(), b.matrix(), options);
  std::vector<std::vector<std::byte>> found;
  for (const int threads : {1, 2, 5}) {
    const ThreadsScope scope(threads);
    const std::array<LinearPart, 2> parts{LinearPart{Weight(first.view), a}, LinearPart{per_token, b}};
    linear(ctx_, x, parts);
    expect_close(a, expected_a.value, expected_a.error, "a scale per block");
    expect_close(b, expected_b.value, expected_b.error, "a scale per token");
    found.push_back(b.bytes());
    EXPECT_EQ(found.front(), found.back());
  }
  for (const std::int64_t row : {0, 17, 39}) {
    const TestTensor alone(DType::F32, 1, 33, 7);
    linear(ctx_, x.view().slice_rows(row, row + 1), per_token, alone);
    for (std::int64_t n = 0; n < 33; ++n)
      ASSERT_EQ(alone.view().as<float>()[n], b.view().slice_rows(row, row + 1).as<float>()[n]);
  }
  ctx_.integer_products = false;
  EXPECT_FALSE(multiplies_integers(ctx_, per_token));
  EXPECT_THROW(linear(ctx_, x, per_token, b), LogicError);
}

/// A row that is not finite gives NaN, so that a loss tells of it.
TEST_P(LinearTest, IntegerProductsOfNonFiniteRows) {
  const std::int64_t k = 64;
  const Coded coded("int4-sym-g32", 20, k, DType::F32, 1);
  Weight weight(coded.view);
  weight.input = quant::find_codec("int8-asym");
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const TestTensor x(DType::F32, 2, k, 4), y(DType::F32, 2, 20, 5);
    x.view().as<float>()[x.view().row_stride + 3] = bad;
    linear(ctx_, x, weight, y);
    for (std::int64_t n = 0; n < 20; ++n) {
      EXPECT_TRUE(std::isfinite(y.view().as<float>()[n]));
      EXPECT_TRUE(std::isnan(y.view().as<float>()[y.view().row_stride + n]));
    }
  }
}

/// Outliers have no place among codes: the product is that of the rounded copy, for few rows and for many.
TEST_P(LinearTest, OutliersOfLlmInt8TakeTheFloatProduct) {
  const std::int64_t k = 96;
  const Coded coded("int8-sym", 20, k, DType::F32, 1);
  ASSERT_TRUE(ctx_.integer_products);
  for (const std::int64_t m : {2, 40}) {
    Weight weight(coded.view, m > kFewRows ? coded.operand.view() : TensorView());
    weight.input = &quant::activation_codec("llm-int8");
    EXPECT_FALSE(multiplies_integers(ctx_, weight));
    const TestTensor x(DType::F32, m, k, 4), rounded(DType::F32, m, k, 4), y(DType::F32, m, 20, 5);
    for (std::int64_t r = 0; r < m; ++r) x.view().as<float>()[r * x.view().row_stride + r % k] = 1000.0f;
    quant::round_activations(*weight.input, x, rounded);
    EXPECT_EQ(rounded.view().as<float>()[0], 1000.0f);
    EXPECT_NE(rounded.bytes(), x.bytes());
    const auto expected = reference::matmul(rounded.matrix(), coded.operand.matrix(), y.matrix(), {.transpose_b = true});
    linear(ctx_, x, weight, y);
    expect_close(y, expected.value, expected.error, fmt::format("{} rows", m));
  }
}

TEST_P(LinearTest, LooksUpRowsOfCodes) {
  const Coded table("q8_0", 50, 96, DType::BF16, 1);
  const std::vector<std::int32_t> tokens = {3, 49, 0, 3};
  const TestTensor codes(DType::F32, 4, 96, 2), dense(DType::F32, 4, 96, 3);
  ctx_.compute = DType::BF16;
  embedding(ctx_, Weight(table.view), tokens, codes);
  embedding(ctx_, table.operand.view(), tokens, dense);
  EXPECT_EQ(codes.bytes(), dense.bytes());
}

TEST_P(LinearTest, RefusesWhatDoesNotFit) {
  const Coded coded("q4_0", 40, 64, DType::F32, 1);
  const TestTensor few(DType::F32, 2, 64, 2), many(DType::F32, 9, 64, 2), narrow(DType::F32, 2, 32, 2);
  const TestTensor y(DType::F32, 2, 40, 3), tall(DType::F32, 9, 40, 3), half(DType::BF16, 2, 40, 3);
  EXPECT_THROW(linear(ctx_, many, Weight(coded.view), tall), LogicError);
  EXPECT_THROW(linear(ctx_, narrow, Weight(coded.view), y), LogicError);
  EXPECT_THROW(linear(ctx_, few, Weight(coded.view), half), LogicError);
  EXPECT_THROW(linear(ctx_, few, Weight(coded.view), tall), LogicError);
  EXPECT_THROW(linear(ctx_, few, Weight(), y), LogicError);
}

TEMPER_BACKEND_SUITE(LinearTest);

}  // namespace
}  // namespace temper::ops
