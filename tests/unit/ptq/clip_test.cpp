// Clipped ranges: never worse than the plain fit in the error that they minimise, measured here in double.
#include "ptq/clip.h"

#include <gtest/gtest.h>

#include "matrices.h"

namespace temper::ptq {
namespace {

using temper::testing::normal_matrix;

std::vector<float> params_for(const quant::Codec& codec, const TensorView& values) {
  return std::vector<float>(static_cast<std::size_t>(values.rows() * codec.params_per_row(values.cols())));
}

/// Σ importance · (decoded − value)², by the scalar decode.
double error(const quant::Codec& codec, const TensorView& values, std::span<const std::byte> bytes,
             std::span<const float> importance) {
  const auto cols = static_cast<std::size_t>(values.cols());
  std::vector<float> row(cols);
  double sum = 0;
  for (std::int64_t r = 0; r < values.rows(); ++r) {
    codec.decode(bytes.subspan(static_cast<std::size_t>(r) * codec.row_bytes(values.cols()), codec.row_bytes(values.cols())),
                 row);
    for (std::size_t c = 0; c < cols; ++c) {
      const double d = static_cast<double>(row[c]) - values.as<float>()[static_cast<std::size_t>(r) * cols + c];
      sum += d * d * (importance.empty() ? 1.0 : static_cast<double>(importance[c]));
    }
  }
  return sum;
}

class Clip : public ::testing::TestWithParam<const char*> {
 protected:
  const quant::Codec& codec_ = *quant::find_codec(GetParam());
  Tensor values_ = normal_matrix(150, 256, 7);  // more rows than a band, no whole number of them
};

TEST_P(Clip, SmallestErrorIsNeverAboveThePlainFit) {
  std::vector<float> importance(256);
  for (std::size_t c = 0; c < importance.size(); ++c) importance[c] = c % 9 == 4 ? 50.0f : 0.5f;
  values_.span<float>()[1000] = 40.0f;  // an outlier, worth clipping
  std::vector<std::byte> plain(150 * codec_.row_bytes(256));
  codec_.encode_rows(values_, plain);
  std::vector<float> params = params_for(codec_, values_);
  for (const std::span<const float> weights : {std::span<const float>(), std::span<const float>(importance)}) {
    fit_mse(codec_, values_, weights, params);
    EXPECT_LE(error(codec_, values_, round_all(codec_, values_, params), weights), error(codec_, values_, plain, weights));
  }
}

TEST_P(Clip, WholePercentileIsThePlainFit) {
  std::vector<std::byte> plain(150 * codec_.row_bytes(256));
  codec_.encode_rows(values_, plain);
  std::vector<float> params = params_for(codec_, values_);
  fit_percentile(codec_, values_, 100.0, params);
  EXPECT_TRUE(round_all(codec_, values_, params) == plain);
  fit_percentile(codec_, values_, 90.0, params);
  EXPECT_FALSE(round_all(codec_, values_, params) == plain);
}

INSTANTIATE_TEST_SUITE_P(Formats, Clip,
                         ::testing::Values("int4-sym-g32", "int2-sym-g32", "int3-asym-g64", "int4-tinygemm-g128",
                                           "int8-symeps", "fp8-e4m3", "fp8-e4m3-tensor", "fp8-e4m3-b128", "mxfp4", "nvfp4",
                                           "nvfp4-ct", "nf4", "q4_0", "q5_1", "q8_0"));

TEST(Clip, LowBitIntegersGainMuch) {
  const quant::Codec& codec = *quant::find_codec("int2-sym-g32");
  const Tensor values = normal_matrix(64, 256, 8);
  std::vector<std::byte> plain(64 * codec.row_bytes(256));
  codec.encode_rows(values, plain);
  std::vector<float> params = params_for(codec, values);
  fit_mse(codec, values, {}, params);
  EXPECT_LT(error(codec, values, round_all(codec, values, params), {}), 0.8 * error(codec, values, plain, {}));
}

TEST(Clip, PercentileIsLinearBetweenOrderStatistics) {
  // Magnitudes 1 … 32; the 90th percentile is at 0.9 · 31 = 27.9, that is 28.9.
  const quant::Codec& codec = *quant::find_codec("int8-sym-g32");
  Tensor values(DType::F32, {1, 32});
  for (int i = 0; i < 32; ++i)
    values.span<float>()[static_cast<std::size_t>(i)] = static_cast<float>(i % 2 ? -i - 1 : i + 1);
  std::vector<float> params(1);
  fit_percentile(codec, values, 90.0, params);
  EXPECT_FLOAT_EQ(params[0], 28.9f / 127.5f);
}

TEST(Clip, SearchesAndNestedScalesAreRefused) {
  for (const char* name : {"q4_k", "iq4_nl", "nf4-dq"}) {
    EXPECT_FALSE(can_clip(*quant::find_codec(name))) << name;
    EXPECT_THROW(require_clip(*quant::find_codec(name), "mse"), BadRecipe) << name;
  }
}

}  // namespace
}  // namespace temper::ptq
