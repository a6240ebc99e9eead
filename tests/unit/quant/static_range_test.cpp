// Activations in static ranges: against the definition in double, and the backward pass against its scalar twin.
#include "quant/static_range.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/error.h"
#include "quant/activations.h"
#include "quant/int_product.h"
#include "quant/scaled_codec.h"

namespace temper::quant {
namespace {

constexpr std::int64_t kRows = 5, kCols = 96;

/// Normal values around `mean`, some of them far beyond the ranges of the tests.
std::vector<float> values(float mean, bool in_bf16) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(mean, 1.0f);
  std::vector<float> x(static_cast<std::size_t>(kRows * kCols));
  for (float& v : x) v = in_bf16 ? to_float(to_bf16(normal(random))) : normal(random);
  x[7] = 40.0f;
  x[8] = -40.0f;
  x[9] = 0.0f;
  return x;
}

struct Case {
  const char* format;
  float low, high;
};

class StaticRanges : public ::testing::TestWithParam<Case> {};

bool is_float(const Case& c) { return std::string_view(c.format) == "fp8-static"; }

/// x̂ by the definition in double; `inside` says whether x is within what the format holds.
double rounded_value(const Case& c, const StaticRange& range, double x, bool& inside) {
  const double s = range.scale;
  if (is_float(c)) {
    inside = std::fabs(x) <= 448 * s;
    return to_float(kE4M3, to_small(kE4M3, static_cast<float>(std::clamp(x / s, -448.0, 448.0)))) * s;
  }
  const double t = x / s + range.zero;
  inside = t >= -128.5 && t <= 127.5;
  return (std::nearbyint(std::clamp(t, -128.0, 127.0)) - range.zero) * s;
}

TEST_P(StaticRanges, EveryTokenIsRoundedByOneScale) {
  const Case& c = GetParam();
  const Codec& codec = activation_codec(c.format);
  ASSERT_TRUE(has_static_range(codec));
  const StaticRange range = static_range(codec, c.low, c.high, DType::BF16);
  EXPECT_EQ(to_float(to_bf16(range.scale)), range.scale);
  std::vector<float> x = values(0.3f, false), out(x.size());
  const Shape shape{kRows, kCols};
  round_activations(codec, TensorView(x.data(), DType::F32, shape), TensorView(out.data(), DType::F32, shape), range);
  for (std::size_t i = 0; i < x.size(); ++i) {
    bool inside = false;
    const double expected = rounded_value(c, range, static_cast<double>(x[i]), inside);
    // The quotient and the product are rounded to f32: a value within 2 ulp of a tie may go either way.
    const double step = is_float(c) ? std::fabs(expected) / 8 : static_cast<double>(range.scale);
    const double tie = std::fabs(std::fabs(static_cast<double>(x[i]) - expected) - step / 2);
    if (tie < 1e-5 * step && inside) continue;
    EXPECT_NEAR(out[i], expected, 1e-6 * std::fabs(expected)) << i << " of " << x[i];
  }
}

/// As kernels that are given a scale have it (vLLM's), and unlike formats that find theirs: no arithmetic in bf16 but of the
/// result.
TEST_P(StaticRanges, Bf16OperandsGiveTheCodesOfF32) {
  const Case& c = GetParam();
  const Codec& codec = in_dtype(activation_codec(c.format), DType::BF16);
  const StaticRange range = static_range(codec, c.low, c.high, DType::BF16);
  std::vector<float> x = values(0.3f, true);
  std::vector<bf16> in, out(x.size());
  for (const float v : x) in.push_back(to_bf16(v));
  const Shape shape{kRows, kCols};
  round_activations(codec, TensorView(in.data(), DType::BF16, shape), TensorView(out.data(), DType::BF16, shape), range);
  const TensorView view(x.data(), DType::F32, shape);
  round_activations(activation_codec(c.format), view, view, range);
  for (std::size_t i = 0; i < x.size(); ++i)
    EXPECT_EQ(to_float(out[i]), to_float(to_bf16(x[i]))) << i << " of " << in[i].bits;
}

TEST_P(StaticRanges, BackwardEqualsTheScalarTwin) {
  const Case& c = GetParam();
  const Codec& codec = activation_codec(c.format);
  const InputFormat format{ActivationGrid::None, &codec, static_range(codec, c.low, c.high, DType::BF16)};
  ASSERT_TRUE(clips(format));
  std::vector<float> x = values(0.3f, false), grad = values(0.0f, false), out = grad, rounded(x.size());
  const Shape shape{kRows, kCols};
  round_activations(codec, TensorView(x.data(), DType::F32, shape), TensorView(rounded.data(), DType::F32, shape),
                    format.range);
  const RangeGradient found =
      clip_backward(format, TensorView(x.data(), DType::F32, shape), TensorView(out.data(), DType::F32, shape));
  RangeGradient expected;
  const double s = format.range.scale;
  std::size_t masked = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    bool inside = false;
    rounded_value(c, format.range, static_cast<double>(x[i]), inside);
    EXPECT_EQ(out[i], inside ? grad[i] : 0.0f) << i;
    masked += !inside;
    const double g = grad[i];
    expected.scale += g * (rounded[i] - (inside ? static_cast<double>(x[i]) : 0.0)) / s;
    expected.zero += inside ? 0.0 : -s * g;
  }
  EXPECT_GT(masked, 0u);
  EXPECT_NEAR(found.scale, expected.scale, 1e-9 * std::fabs(expected.scale));
  EXPECT_NEAR(found.zero, expected.zero, 1e-9 * std::fabs(expected.zero));
}

INSTANTIATE_TEST_SUITE_P(Formats, StaticRanges,
                         ::testing::Values(Case{"int8-static-sym", -2.0f, 1.5f}, Case{"int8-static-asym", -1.2f, 3.0f},
                                           Case{"int8-static-asym", 0.5f, 2.0f}, Case{"fp8-static", -2.0f, 2.5f}));

TEST(StaticRange, ParametersAreThoseOfCompressedTensors) {
  const auto of = [](const char* format, float low, float high) {
    return static_range(activation_codec(format), low, high, DType::BF16);
  };
  EXPECT_EQ(of("int8-static-sym", -2.0f, 1.0f), (StaticRange{to_float(to_bf16(2.0f / 127.5f)), 0}));
  EXPECT_EQ(of("int8-static-asym", -1.0f, 3.0f), (StaticRange{to_float(to_bf16(4.0f / 255.0f)), -64}));
  EXPECT_EQ(of("int8-static-asym", 1.0f, 2.0f).zero, -128);  // 0 is always held
  EXPECT_EQ(of("int8-static-asym", -1.9921875f, -1.0f).zero, 127);
  EXPECT_EQ(of("fp8-static", -7.0f, 3.5f), (StaticRange{0.015625f, 0}));
  EXPECT_EQ(of("nvfp4-static", -2.0f, 1.0f), (StaticRange{1344.0f, 0}));
  EXPECT_TRUE(of("int8-static-sym", 0.0f, 0.0f).known());
  EXPECT_THROW(static_range(activation_codec("int8-asym"), -1, 1, DType::BF16), LogicError);
}

/// With the tensor scale that a matrix has by itself, a token's groups are what the matrix's would be.
TEST(StaticRange, Nvfp4WithTheScaleOfAMatrixIsThatMatrix) {
  const Codec &given = activation_codec("nvfp4-static"), &own = *find_codec("nvfp4-ct");
  const std::vector<float> source = values(0.0f, true);
  std::vector<bf16> x, out(source.size());
  for (const float v : source) x.push_back(to_bf16(v));
  const TensorView in(x.data(), DType::BF16, Shape{kRows, kCols}), rounded(out.data(), DType::BF16, Shape{kRows, kCols});
  std::vector<std::byte> encoded(kRows * own.row_bytes(kCols));
  own.encode_rows(in, encoded);
  std::vector<bf16> expected(out.size());
  own.decode_rows(encoded, TensorView(expected.data(), DType::BF16, Shape{kRows, kCols}));
  round_activations(given, in, rounded, static_range(given, -40.0f, 40.0f, DType::BF16));
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_EQ(out[i].bits, expected[i].bits) << i;
}

/// Codes of integer products are those of the fake quantization.
TEST(StaticRange, IntegerProductsTakeTheGivenRange) {
  for (const char* name : {"int8-static-sym", "int8-static-asym"}) {
    const Codec& codec = activation_codec(name);
    InputFormat format{ActivationGrid::None, &codec, {}};
    const Codec& weight = *find_codec("int8-sym");
    EXPECT_FALSE(has_integer_product(weight, format, kCols));  // no range yet
    format.range = static_range(codec, -1.2f, 3.0f, DType::BF16);
    ASSERT_TRUE(has_integer_product(weight, format, kCols));
    std::vector<float> x = values(0.3f, false), rounded(x.size());
    const TensorView in(x.data(), DType::F32, Shape{kRows, kCols});
    round_activations(codec, in, TensorView(rounded.data(), DType::F32, Shape{kRows, kCols}), format.range);
    Arena arena(1 << 20);
    const IntegerInput input(arena, format, kRows, kCols, 0);
    input.round(in, 0, kRows);
    for (std::int64_t r = 0; r < kRows; ++r)
      for (std::int64_t k = 0; k < kCols; ++k) {
        const int zero = input.zeros ? input.zeros.as<const std::int32_t>()[r] : 128;
        const int code = input.codes.as<const std::uint8_t>()[r * input.codes.row_stride + k] - zero;
        EXPECT_EQ(static_cast<float>(code) * format.range.scale, rounded[static_cast<std::size_t>(r * kCols + k)]);
      }
  }
}

TEST(StaticRange, FormatsAreOfActivationsOnly) {
  for (const char* name : {"int8-static-sym", "int8-static-asym", "fp8-static", "nvfp4-static"}) {
    ASSERT_NE(find_codec(name), nullptr) << name;
    EXPECT_FALSE(find_codec(name)->encodes()) << name;
  }
  EXPECT_EQ(find_codec("int4-static-sym"), nullptr);
  EXPECT_EQ(find_codec("int8-static-sym-g32"), nullptr);
  EXPECT_EQ(find_codec("int8-static-asym-bf16"), nullptr);
}

}  // namespace
}  // namespace temper::quant
