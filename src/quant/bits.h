// Scalars that the definitions and the kernels of isa/ share. All of it has internal linkage and calls no inline function
// of another header, so that no code for a newer CPU can be merged into what an older one runs.
#pragma once

#include <cstdint>

namespace temper::quant {
namespace {

using i8 = std::int8_t;
using i16 = std::int16_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;

inline float float_of(u32 bits) { return __builtin_bit_cast(float, bits); }
inline u32 bits_of(float x) { return __builtin_bit_cast(u32, x); }

/// To f16, nearest even (as to_f16 of base/scalar.h, for finite values and infinities).
inline u16 half_bits(float x) {
  const u32 u = bits_of(x), sign = u >> 16 & 0x8000u, magnitude = u & 0x7fffffffu;
  u32 h;
  if (magnitude > 0x7f800000u) {
    h = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {
    h = 0x7c00u;
  } else if (magnitude < 0x38800000u) {
    h = bits_of(float_of(magnitude) + 0.5f) -
        0x3f000000u;  // the sum shifts a subnormal's mantissa into place, rounding once
  } else {
    h = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
  }
  return static_cast<u16>(sign | h);
}

inline float from_half(u16 h) {
  const u32 sign = (h & 0x8000u) << 16, rest = h & 0x7fffu;
  if (rest >= 0x7c00u) return float_of(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  if (rest >= 0x0400u) return float_of(sign | ((rest << 13) + 0x38000000u));
  const float subnormal = static_cast<float>(rest) * 0x1p-24f;
  return sign ? -subnormal : subnormal;
}

template <typename T>
T load(const u8* bytes) {
  T value;
  __builtin_memcpy(&value, bytes, sizeof(T));
  return value;
}

template <typename T>
void store(u8* bytes, T value) {
  __builtin_memcpy(bytes, &value, sizeof(T));
}

}  // namespace
}  // namespace temper::quant
