// Element types, as files and kernels name them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/scalar.h"

namespace temper {

/// The 8-bit floats are stored, never computed with: files hold codes and scales of number formats in them.
enum class DType : std::uint8_t { F64, F32, BF16, F16, I64, I32, I16, I8, U8, Bool, F8E4M3, F8E5M2, F8E8M0 };

std::size_t dtype_size(DType dtype);       ///< Bytes of one element.
std::string_view dtype_name(DType dtype);  ///< "F32", "BF16", … as safetensors spells it.
std::optional<DType> dtype_from_name(std::string_view name);

template <typename T>
inline constexpr DType dtype_of = [] {
  static_assert(sizeof(T) == 0, "no DType for this type");
  return DType::F32;
}();
template <>
inline constexpr DType dtype_of<double> = DType::F64;
template <>
inline constexpr DType dtype_of<float> = DType::F32;
template <>
inline constexpr DType dtype_of<bf16> = DType::BF16;
template <>
inline constexpr DType dtype_of<f16> = DType::F16;
template <>
inline constexpr DType dtype_of<std::int64_t> = DType::I64;
template <>
inline constexpr DType dtype_of<std::int32_t> = DType::I32;
template <>
inline constexpr DType dtype_of<std::int16_t> = DType::I16;
template <>
inline constexpr DType dtype_of<std::int8_t> = DType::I8;
template <>
inline constexpr DType dtype_of<std::uint8_t> = DType::U8;

/// Runs `body` with a value of the C++ type behind a floating dtype: the one place where run-time types become static ones.
/// Throws Unsupported, naming `op` and the dtype, for any other type.
template <typename Body>
decltype(auto) with_float_type(const char* op, DType dtype, Body&& body) {
  switch (dtype) {
    case DType::F32: return body(float{});
    case DType::BF16: return body(bf16{});
    default: throw Unsupported("{}: expected F32 or BF16, found {}", op, dtype_name(dtype));
  }
}

}  // namespace temper
