#include "base/scalar.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace temper {
namespace {

/// Rounds to a binary format with `mantissa` stored bits and normal exponents from `min_exponent`, by definition: to the
/// nearest multiple of the unit in the last place, ties to even; infinity from half an ulp above `largest`.
double rounded(double x, int mantissa, int min_exponent, double largest) {
  if (x == 0 || std::isnan(x) || std::isinf(x)) return x;
  const double unit = std::ldexp(1.0, std::max(std::ilogb(x), min_exponent) - mantissa);
  const double result = std::nearbyint(x / unit) * unit;  // both exact: powers of two, and x has 24 bits
  return std::abs(result) > largest ? std::copysign(std::numeric_limits<double>::infinity(), x) : result;
}

constexpr double kLargestF16 = 65504, kLargestBf16 = 0x1.fep127;

void expect_rounds(float x) {
  const float as_f16 = to_float(to_f16(x)), as_bf16 = to_float(to_bf16(x));
  if (std::isnan(x)) {
    ASSERT_TRUE(std::isnan(as_f16) && std::isnan(as_bf16)) << std::bit_cast<std::uint32_t>(x);
    return;
  }
  ASSERT_EQ(static_cast<double>(as_f16), rounded(x, 10, -14, kLargestF16)) << x;
  ASSERT_EQ(static_cast<double>(as_bf16), rounded(x, 7, -126, kLargestBf16)) << x;
  ASSERT_EQ(std::signbit(as_f16), std::signbit(x)) << x;
  ASSERT_EQ(std::signbit(as_bf16), std::signbit(x)) << x;
}

TEST(Scalar, EveryF16DecodesByDefinition) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = to_float(f16{static_cast<std::uint16_t>(bits)});
    const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
    ASSERT_EQ(std::signbit(value), bits >= 0x8000) << bits;
    if (exponent == 31) {
      ASSERT_TRUE(mantissa == 0 ? std::isinf(value) : std::isnan(value)) << bits;
    } else {
      const double magnitude = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
      ASSERT_EQ(std::abs(static_cast<double>(value)), magnitude) << bits;
    }
  }
}

TEST(Scalar, EverySixteenBitFloatSurvivesARoundTrip) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const f16 half{static_cast<std::uint16_t>(bits)};
    const bf16 brain{static_cast<std::uint16_t>(bits)};
    if (std::isnan(to_float(half)))
      ASSERT_TRUE(std::isnan(to_float(to_f16(to_float(half)))));
    else
      ASSERT_EQ(to_f16(to_float(half)).bits, bits);
    if (std::isnan(to_float(brain)))
      ASSERT_TRUE(std::isnan(to_float(to_bf16(to_float(brain)))));
    else
      ASSERT_EQ(to_bf16(to_float(brain)).bits, bits);
  }
}

TEST(Scalar, RoundsAroundEveryMidpoint) {
  // Between each number of a format and the next: the midpoint, which is exact in f32, and its two neighbours.
  const auto around = [](float low, float high) {
    const auto middle = static_cast<float>((static_cast<double>(low) + high) / 2);
    for (const float x : {std::nextafter(middle, low), middle, std::nextafter(middle, high)}) {
      expect_rounds(x);
      expect_rounds(-x);
    }
  };
  for (std::uint16_t bits = 0; bits < 0x7bff; ++bits) {
    around(to_float(f16{bits}), to_float(f16{static_cast<std::uint16_t>(bits + 1)}));
    if (::testing::Test::HasFatalFailure()) return;
  }
  for (std::uint16_t bits = 0; bits < 0x7f7f; ++bits) {
    around(to_float(bf16{bits}), to_float(bf16{static_cast<std::uint16_t>(bits + 1)}));
    if (::testing::Test::HasFatalFailure()) return;
  }
}

TEST(Scalar, RoundsAcrossTheWholeRange) {
  for (std::uint64_t bits = 0; bits <= 0xffffffffu; bits += 4099) {  // a prime: every mantissa pattern comes up
    expect_rounds(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
    if (::testing::Test::HasFatalFailure()) return;
  }
  for (const float x : {65504.0f, 65519.996f, 65520.0f, 65536.0f, 3.4028235e38f, 3.3961776e38f, 0x1p-24f, 0x1p-25f,
                        0x1.000002p-25f, std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::infinity()}) {
    expect_rounds(x);
    expect_rounds(-x);
  }
}

TEST(Scalar, NanKeepsItsSignAndStaysNan) {
  for (const std::uint32_t bits : {0x7f800001u, 0x7fc00000u, 0xff800001u, 0xffffffffu, 0x7fffffffu}) {
    const auto x = std::bit_cast<float>(bits);
    EXPECT_TRUE(std::isnan(to_float(to_f16(x))));
    EXPECT_TRUE(std::isnan(to_float(to_bf16(x))));
    EXPECT_EQ(to_bf16(x).bits >> 15, bits >> 31);
    EXPECT_EQ(to_f16(x).bits >> 15, bits >> 31);
  }
}

}  // namespace
}  // namespace temper
