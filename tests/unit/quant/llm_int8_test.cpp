// Activations of LLM.int8 against the definition in double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "quant/activations.h"
#include "quant/int_product.h"
#include "quant/row_kernels.h"
#include "quant/scheme.h"

namespace temper::quant {
namespace {

constexpr std::int64_t kCols = 80;  // no multiple of a vector of any instruction set but the smallest
constexpr double kThreshold = 6.0;

double half(double x) { return static_cast<double>(to_float(to_f16(static_cast<float>(x)))); }

/// Ordinary values, a few of them beyond the threshold; `outliers` of the first ones.
std::vector<float> row_with(int outliers, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(kCols);
  for (float& v : x) v = 4.0f * (2.0f * rng.uniform() - 1.0f);
  for (int i = 0; i < outliers; ++i)
    x[static_cast<std::size_t>(i)] = (i % 2 ? -1.0f : 1.0f) * (6.1f + static_cast<float>(i));
  return x;
}

std::vector<float> rounded(std::vector<float> x, std::int64_t rows = 1) {
  const TensorView view(x.data(), DType::F32, {rows, static_cast<std::int64_t>(x.size()) / rows});
  round_activations(activation_codec("llm-int8"), view, view);
  return x;
}

TEST(LlmInt8, EqualsTheDefinitionInDouble) {
  for (const Isa isa : available_isas()) {
    set_row_kernels(isa);
    for (const int outliers : {0, 1, 7, static_cast<int>(kCols)}) {
      const std::vector<float> x = row_with(outliers, 7), found = rounded(x);
      double absmax = 0;
      for (const float v : x)
        if (std::abs(half(v)) < kThreshold) absmax = std::max(absmax, std::abs(half(v)));
      for (std::size_t i = 0; i < x.size(); ++i) {
        const double h = half(x[i]);
        if (std::abs(h) >= kThreshold) {
          EXPECT_EQ(found[i], x[i]) << i;
          continue;
        }
        const double t = h * 127.0 / absmax, expected = std::nearbyint(t) * absmax / 127.0;
        ASSERT_GT(std::abs(t - std::floor(t) - 0.5), 1e-4) << "a tie, which f32 may decide otherwise";
        // Four roundings to f32: of the product of code and absmax, of 1/127, of their product; none of the code.
        EXPECT_NEAR(found[i], expected, 4 * 0x1p-24 * std::abs(expected)) << isa_name(isa) << " " << i;
      }
    }
  }
  set_row_kernels(active_isa());
}

TEST(LlmInt8, RowsOfZerosAndOfOutliersAlone) {
  EXPECT_EQ(rounded(std::vector<float>(kCols)), std::vector<float>(kCols));
  const std::vector<float> outliers = row_with(static_cast<int>(kCols), 3);
  EXPECT_EQ(rounded(outliers), outliers);
  std::vector<float> one(kCols);
  one[11] = -1e30f;  // beyond f16
  EXPECT_EQ(rounded(one), one);
}

/// The loss has to tell of them; the rows beside are rounded as ever.
TEST(LlmInt8, RowsThatAreNotFiniteStayAsTheyAre) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    std::vector<float> x = row_with(2, 5);
    const std::vector<float> beside = row_with(1, 6);
    x[40] = bad;
    std::vector<float> both = x;
    both.insert(both.end(), beside.begin(), beside.end());
    const std::vector<float> found = rounded(both, 2);
    EXPECT_EQ(std::memcmp(found.data(), x.data(), x.size() * sizeof(float)), 0);
    EXPECT_EQ(std::vector<float>(found.begin() + kCols, found.end()), rounded(beside));
  }
}

/// What a token becomes does not depend on its neighbours' outliers, unlike in a batch of bitsandbytes.
TEST(LlmInt8, TokensAreRoundedAlone) {
  const std::vector<float> calm = row_with(0, 1), wild = row_with(9, 2);
  std::vector<float> both = wild;
  both.insert(both.end(), calm.begin(), calm.end());
  const std::vector<float> found = rounded(both, 2);
  EXPECT_EQ(std::vector<float>(found.begin() + kCols, found.end()), rounded(calm));
}

TEST(LlmInt8, IsAFormatOfActivationsAlone) {
  const Codec& codec = activation_codec("llm-int8");
  EXPECT_EQ(&in_dtype(codec, DType::BF16), &codec);
  EXPECT_EQ(find_codec("llm-int8"), nullptr);
  EXPECT_THROW(scheme("llm-int8"), BadRecipe);
  EXPECT_THROW(scheme("none; linear: llm-int8"), BadRecipe);
  const Scheme& own = scheme("int8-sym/llm-int8; *.down_proj: int8-sym/none; head: int8-sym/llm-int8");
  EXPECT_EQ(own.input, &codec);
  EXPECT_EQ(&scheme(own.name), &own);
  EXPECT_THROW(scheme("int8-sym/llm-int8/llm-int8"), BadRecipe);  // of inputs, not of products
}

/// Outliers have no place in an integer product.
TEST(LlmInt8, HasNoIntegerProduct) {
  const InputFormat input{ActivationGrid::None, &activation_codec("llm-int8")};
  for (const char* weights : {"int8-sym", "int4-sym-g32", "q8_0"})
    EXPECT_FALSE(has_integer_product(*find_codec(weights), input, 128)) << weights;
}

}  // namespace
}  // namespace temper::quant
