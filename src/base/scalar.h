// 16-bit floats and smaller ones, and their exact conversions. Rounding is to nearest, ties to even. 16 bits: NaN stays NaN,
// f32 overflow gives infinity. Smaller: saturating, see SmallFloat.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace temper {

/// bfloat16: the upper half of an IEEE binary32.
struct bf16 {
  std::uint16_t bits;
};

/// IEEE binary16.
struct f16 {
  std::uint16_t bits;
};

inline float to_float(float x) { return x; }

inline float to_float(bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

inline bf16 to_bf16(float x) {
  std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<std::uint16_t>((u >> 16) | 0x40u)};  // quiet NaN
  u += 0x7fffu + ((u >> 16) & 1u);
  return {static_cast<std::uint16_t>(u >> 16)};
}

inline float to_float(f16 h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h.bits & 0x8000u) << 16;
  const std::uint32_t exponent = (h.bits >> 10) & 0x1fu;
  const std::uint32_t mantissa = h.bits & 0x3ffu;
  if (exponent == 0x1fu) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  const float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -subnormal : subnormal;
}

inline f16 to_f16(float x) {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  const std::uint16_t sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
  const std::uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<std::uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};  // rounds to 65536 or more
  if (magnitude < 0x38800000u) {
    // Below 2^-14 the result is subnormal: adding 0.5 shifts the mantissa into place and rounds once.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u))};
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return {static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

/// 2^exponent, from -127 (a subnormal) to 127.
inline float power_of_two(int exponent) {
  return std::bit_cast<float>(exponent > -127 ? static_cast<std::uint32_t>(exponent + 127) << 23 : 0x00400000u);
}
/// floor(log2 |x|); -127 for what is less than 2^-126.
inline int exponent_of(float x) { return static_cast<int>(std::bit_cast<std::uint32_t>(x) >> 23 & 0xffu) - 127; }

/// A float of at most 8 bits: sign, `exponent` bits, `mantissa` bits (OFP8 and OCP MX 1.0).
struct SmallFloat {
  int exponent, mantissa;
  float largest;

  constexpr int bias() const { return (1 << (exponent - 1)) - 1; }
  constexpr int bits() const { return 1 + exponent + mantissa; }
};
inline constexpr SmallFloat kE4M3{4, 3, 448.0f}, kE5M2{5, 2, 57344.0f}, kE2M3{2, 3, 7.5f}, kE3M2{3, 2, 28.0f},
    kE2M1{2, 1, 6.0f};

/// The value of a code. E4M3 has NaN (all ones), E5M2 infinities and NaN; the others have neither.
inline float to_float(const SmallFloat& format, unsigned code) {
  const unsigned magnitude = code & ((1u << (format.bits() - 1)) - 1), mask = (1u << format.mantissa) - 1;
  const int exponent = static_cast<int>(magnitude >> format.mantissa);
  const int fraction = static_cast<int>(magnitude & mask);
  float value;
  if (format.bits() == 8 && magnitude > (format.mantissa == 3 ? 0x7eu : 0x7bu))
    value = format.mantissa == 2 && fraction == 0 ? std::numeric_limits<float>::infinity()
                                                  : std::numeric_limits<float>::quiet_NaN();
  else if (exponent == 0)
    value = static_cast<float>(fraction) * power_of_two(1 - format.bias() - format.mantissa);
  else
    value = static_cast<float>(fraction + (1 << format.mantissa)) * power_of_two(exponent - format.bias() - format.mantissa);
  return code >> (format.bits() - 1) & 1u ? -value : value;
}

/// The nearest code, ties to even, saturating at ±largest; NaN becomes largest.
inline unsigned to_small(const SmallFloat& format, float x) {
  const float magnitude = std::fabs(x) < format.largest ? std::fabs(x) : format.largest;
  const int exponent = std::max(exponent_of(magnitude), 1 - format.bias());
  // Below the smallest normal the exponent stays at its, and the fraction lacks the leading one: the same sum gives the
  // code.
  const auto fraction = static_cast<unsigned>(std::nearbyint(magnitude * power_of_two(format.mantissa - exponent)));
  const unsigned code = (static_cast<unsigned>(exponent + format.bias() - 1) << format.mantissa) + fraction;
  return code | static_cast<unsigned>(std::signbit(x)) << (format.bits() - 1);
}

}  // namespace temper
