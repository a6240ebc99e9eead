// GPTQ at matrix level: against its definition in double, against rounding to nearest, and its promises.
#include "ptq/gptq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"
#include "base/parallel.h"
#include "matrices.h"
#include "ptq/gptq_factor.h"

namespace temper::ptq {
namespace {

using quant::Codec;
using Matrix = std::vector<std::vector<double>>;

class Gptq : public ::testing::Test {
 protected:
  Arena arena_{std::size_t{1} << 30};
  ExecContext ctx_{&ops::cpu_backend(), &arena_, DType::F32};

  Tensor decoded(const Codec& codec, std::span<const std::byte> bytes, const Shape& shape) const {
    Tensor out(DType::F32, shape);
    codec.decode_rows(bytes, out);
    return out;
  }
  Tensor nearest(const Codec& codec, const TensorView& weights) const {
    std::vector<std::byte> bytes(static_cast<std::size_t>(weights.rows()) * codec.row_bytes(weights.cols()));
    codec.encode_rows(weights, bytes);
    return decoded(codec, bytes, weights.shape);
  }
};

const Codec& codec_named(std::string_view name) {
  const Codec* codec = quant::find_codec(name);
  if (!codec) throw std::runtime_error(std::string(name));
  return *codec;
}

Matrix inverse(Matrix a) {
  const std::size_t n = a.size();
  Matrix out(n, std::vector<double>(n));
  for (std::size_t i = 0; i < n; ++i) out[i][i] = 1.0;
  for (std::size_t c = 0; c < n; ++c) {  // positive definite: no pivoting
    const double pivot = a[c][c];
    for (std::size_t j = 0; j < n; ++j) a[c][j] /= pivot, out[c][j] /= pivot;
    for (std::size_t i = 0; i < n; ++i) {
      if (i == c) continue;
      const double factor = a[i][c];
      for (std::size_t j = 0; j < n; ++j) a[i][j] -= factor * a[c][j], out[i][j] -= factor * out[c][j];
    }
  }
  return out;
}

/// Optimal brain quantization with the order of columns given, as Frantar et al. define it: round a column, spread its error
/// over the others by the inverse of the Hessian, take the column out of the inverse. In double; rounds whole rows with the
/// codec's scalar functions and parameters fit to the weights.
Tensor by_definition(const TensorView& weights, const TensorView& hessian, const Codec& codec, double damping,
                     const std::vector<std::int64_t>& order, std::span<const float> importance) {
  const std::int64_t rows = weights.rows(), cols = weights.cols();
  const auto n = static_cast<std::size_t>(cols), per_row = static_cast<std::size_t>(codec.params_per_row(cols));
  std::vector<float> params(static_cast<std::size_t>(rows) * per_row);
  fit_importance(codec, weights, importance, params);
  codec.join(params, rows, cols);
  Matrix damped(n, std::vector<double>(n));
  double mean = 0.0;
  for (std::int64_t i = 0; i < cols; ++i) mean += hessian.as<float>()[i * cols + i] / static_cast<double>(cols);
  for (std::int64_t i = 0; i < cols; ++i)
    for (std::int64_t j = 0; j < cols; ++j)
      damped[i][j] = hessian.as<float>()[i * cols + j] + (i == j ? damping * mean : 0.0);
  const Matrix start = inverse(damped);
  Tensor out(DType::F32, weights.shape);
  for (std::int64_t r = 0; r < rows; ++r) {
    Matrix left = start;
    std::vector<double> w(weights.as<float>() + r * cols, weights.as<float>() + (r + 1) * cols);
    std::vector<float> row(n), values(n);
    std::vector<std::byte> bytes(codec.row_bytes(cols));
    for (const std::int64_t c : order) {
      std::transform(w.begin(), w.end(), row.begin(), [](double x) { return static_cast<float>(x); });
      codec.round(row, std::span(params).subspan(static_cast<std::size_t>(r) * per_row, per_row), bytes);
      codec.decode(bytes, values);
      const double error = (w[c] - values[c]) / left[c][c];
      out->as<float>()[r * cols + c] = values[c];
      const std::vector<double> pivot = left[c];
      for (std::size_t j = 0; j < n; ++j) w[j] -= error * pivot[j];
      w[c] = values[c];
      for (std::size_t i = 0; i < n; ++i)
        for (std::size_t j = 0; j < n; ++j) left[i][j] -= pivot[i] * pivot[j] / pivot[c];
    }
  }
  return out;
}

std::vector<float> importance_of(const ErrorFactor& factor) {
  double mean = 0.0;
  for (const double d : factor.diagonal) mean += d / static_cast<double>(factor.diagonal.size());
  std::vector<float> importance(factor.diagonal.size());
  for (std::size_t p = 0; p < importance.size(); ++p)
    importance[static_cast<std::size_t>(factor.columns[p])] = static_cast<float>(factor.diagonal[p] / mean);
  return importance;
}

TEST_F(Gptq, FactorGivesTheDampedHessianBack) {
  constexpr std::int64_t n = 150;  // two tiles and a bit
  const Tensor hessian = testing::second_moments(testing::correlated_inputs(400, n, 3));
  for (const bool act_order : {false, true}) {
    const ErrorFactor f = factor_hessian(hessian, 0.01, act_order);
    double trace = 0.0, worst = 0.0;
    for (std::int64_t i = 0; i < n; ++i) trace += hessian->as<float>()[i * n + i];
    const auto upper = [&](std::int64_t i, std::int64_t k) -> double {
      return i == k ? 1.0 : static_cast<double>(f.upper->as<float>()[i * n + k]);
    };
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        double sum = 0.0;
        for (std::int64_t k = std::max(i, j); k < n; ++k) sum += upper(i, k) * f.diagonal[k] * upper(j, k);
        const double expected = hessian->as<float>()[f.columns[i] * n + f.columns[j]] + (i == j ? 0.01 * trace / n : 0.0);
        worst = std::max(worst, std::abs(sum - expected));
        if (j < i) {
          EXPECT_EQ(f.upper->as<float>()[i * n + j], 0.0f);
        }
      }
    // U is rounded to f32: each of n products of two of its elements is off by at most 2 · 2^-24 of the largest H_ii.
    EXPECT_LT(worst, 150 * 2 * 0x1p-24 * trace) << act_order;
    if (act_order)
      for (std::int64_t p = 1; p < n; ++p) {
        const auto at = [&](std::int64_t q) { return hessian->as<float>()[f.columns[q] * n + f.columns[q]]; };
        EXPECT_GE(at(p - 1), at(p));
      }
  }
}

// Every family of codecs, so that parameters of a part of a row are those of the row for all of them.
constexpr std::array kCodecs = {"int2-sym-g32",
                                "int3-sym-g32",
                                "int4-sym-g32",
                                "int4-asym-g32",
                                "int8-sym",
                                "int4-tinygemm-g128-bf16",
                                "int4-ctasym-g128-bf16",
                                "int8-asym",
                                "q4_0",
                                "q4_1",
                                "q5_0",
                                "q5_1",
                                "q8_0",
                                "q2_k",
                                "q3_k",
                                "q4_k",
                                "q5_k",
                                "q6_k",
                                "iq4_nl",
                                "iq4_xs",
                                "tq1_0",
                                "tq2_0",
                                "fp8-e4m3",
                                "fp8-e4m3-tensor",
                                "fp8-e4m3-b128",
                                "fp8-e5m2",
                                "nvfp4",
                                "nvfp4-ct",
                                "nvfp4-local",
                                "gguf-nvfp4",
                                "mxfp4",
                                "gguf-mxfp4",
                                "mxfp6-e2m3",
                                "mxfp8-e4m3",
                                "nf4",
                                "nf4-dq",
                                "fp4-dq"};

TEST_F(Gptq, EqualsItsDefinitionForEveryCodec) {
  const Tensor hessian = testing::second_moments(testing::correlated_inputs(600, 256, 5));
  const Tensor weights = testing::normal_matrix(4, 256, 6, 0.05f);
  const ErrorFactor factor = factor_hessian(hessian, 0.01, true);
  for (const char* name : kCodecs) {
    const Codec& codec = codec_named(name);
    const Tensor expected = by_definition(weights, hessian, codec, 0.01, factor.columns, importance_of(factor));
    GptqOptions options;
    options.block = 48;  // several blocks, none a whole number of groups
    const GptqResult found = gptq(ctx_, weights, hessian, codec, options);
    const Tensor values = decoded(codec, found.encoded, weights->shape);
    // Sums differ in the last bits of f32, which moves a code only where a value lies that close to a threshold, and every
    // code after it in its row: that happens to no more than one of these rows.
    std::int64_t rows_off = 0;
    for (std::int64_t r = 0; r < 4; ++r)
      rows_off +=
          !std::equal(values->as<float>() + r * 256, values->as<float>() + (r + 1) * 256, expected->as<float>() + r * 256);
    EXPECT_LE(rows_off, 1) << name;
    const double error = output_error(ctx_, weights, values, hessian);
    EXPECT_NEAR(error, output_error(ctx_, weights, expected, hessian), 0.02 * error + 1e-12) << name;
  }
}

TEST_F(Gptq, LosesLessThanRoundingToNearestForEveryCodec) {
  const Tensor hessian = testing::second_moments(testing::correlated_inputs(900, 512, 7));
  const Tensor weights = testing::normal_matrix(40, 512, 8, 0.05f);
  for (const char* name : kCodecs) {
    const Codec& codec = codec_named(name);
    const double plain = output_error(ctx_, weights, nearest(codec, weights), hessian);
    for (const bool act_order : {false, true}) {
      GptqOptions options;
      options.act_order = act_order;
      const GptqResult found = gptq(ctx_, weights, hessian, codec, options);
      const double error = output_error(ctx_, weights, decoded(codec, found.encoded, weights->shape), hessian);
      EXPECT_LT(error, (act_order ? 0.8 : 1.0) * plain) << name << (act_order ? " act-order" : "");
      EXPECT_LT(error, found.error) << name;  // the loss that GPTQ counts has the damping in it
    }
  }
}

TEST_F(Gptq, SameBytesForAnyNumberOfThreads) {
  const Tensor hessian = testing::second_moments(testing::correlated_inputs(500, 256, 9));
  const Tensor weights = testing::normal_matrix(200, 256, 10, 0.05f);
  const int before = num_threads();
  for (const char* name : {"int4-sym-g32", "q3_k", "nvfp4"})
    for (const bool act_order : {false, true}) {
      GptqOptions options;
      options.act_order = act_order;
      set_num_threads(1);
      const auto one = gptq(ctx_, weights, hessian, codec_named(name), options);
      set_num_threads(2);
      const auto two = gptq(ctx_, weights, hessian, codec_named(name), options);
      set_num_threads(before);
      EXPECT_TRUE(one.encoded == two.encoded) << name;
      EXPECT_EQ(one.error, two.error) << name;
    }
}

TEST_F(Gptq, InputsWithoutCorrelationGiveRoundingToNearest) {
  Tensor hessian(DType::F32, {64, 64}, /*zero=*/true);
  for (std::int64_t i = 0; i < 64; ++i) hessian->as<float>()[i * 65] = static_cast<float>(1 + i);
  const Tensor weights = testing::normal_matrix(10, 64, 11);
  const Codec& codec = codec_named("int4-sym-g32");
  const GptqResult found = gptq(ctx_, weights, hessian, codec);
  const Tensor expected = nearest(codec, weights), values = decoded(codec, found.encoded, weights->shape);
  EXPECT_TRUE(std::ranges::equal(values.span<float>(), expected.span<float>()));
}

TEST_F(Gptq, InputsThatNeverComeAreHarmless) {
  const Tensor weights = testing::normal_matrix(4, 64, 12), none(DType::F32, {64, 64}, /*zero=*/true);
  const Codec& codec = codec_named("q4_0");
  const GptqResult found = gptq(ctx_, weights, none, codec);
  const Tensor expected = nearest(codec, weights), values = decoded(codec, found.encoded, weights->shape);
  EXPECT_EQ(values->shape, expected->shape);
  const Tensor some = testing::second_moments(testing::correlated_inputs(8, 64, 13));  // rank 8 of 64
  GptqOptions undamped;
  undamped.damping = 0.0;
  EXPECT_NO_THROW(gptq(ctx_, weights, some, codec, undamped));
}

TEST_F(Gptq, RefusesWhatItCannotRound) {
  const Tensor weights = testing::normal_matrix(4, 64, 14), hessian = testing::second_moments(weights);
  EXPECT_THROW(gptq(ctx_, weights, hessian, codec_named("q4_k")), BadRecipe);
  EXPECT_THROW(gptq(ctx_, weights, testing::second_moments(testing::normal_matrix(4, 32, 1)), codec_named("q4_0")),
               LogicError);
  weights->as<float>()[70] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(gptq(ctx_, weights, hessian, codec_named("q4_0")), Diverged);
  hessian->as<float>()[0] = std::numeric_limits<float>::infinity();
  EXPECT_THROW(gptq(ctx_, testing::normal_matrix(4, 64, 15), hessian, codec_named("q4_0")), Diverged);
}

}  // namespace
}  // namespace temper::ptq
