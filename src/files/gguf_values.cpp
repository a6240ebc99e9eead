// Typed access to the key/values of a GGUF file.
#include <cstring>
#include <limits>
#include <utility>

#include "base/error.h"
#include "files/gguf.h"

namespace temper::files {
namespace {

/// How a value reads as each wanted type; nullopt where it does not.
std::optional<std::uint64_t> as_unsigned(const GgufValue& value, std::uint64_t max) {
  return std::visit(
      [max](const auto& v) -> std::optional<std::uint64_t> {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
          if (std::cmp_greater_equal(v, 0) && std::cmp_less_equal(v, max)) return static_cast<std::uint64_t>(v);
        }
        return std::nullopt;
      },
      value);
}

std::optional<float> as_float(const GgufValue& value) {
  if (const auto* f = std::get_if<float>(&value)) return *f;
  if (const auto* d = std::get_if<double>(&value)) return static_cast<float>(*d);
  return std::nullopt;
}

template <typename T>
std::optional<T> as(const GgufValue& value) {
  const T* held = std::get_if<T>(&value);
  return held ? std::optional<T>(*held) : std::nullopt;
}

std::optional<std::span<const std::string_view>> as_strings(const GgufValue& value) {
  const auto* array = std::get_if<GgufArray>(&value);
  if (!array || array->type != GgufType::String) return std::nullopt;
  return std::span<const std::string_view>(array->strings);
}

template <typename From, typename To>
std::vector<To> unpack(const GgufArray& array) {
  std::vector<To> out(array.count);
  for (std::size_t i = 0; i < out.size(); ++i) {
    From element;
    std::memcpy(&element, array.bytes.data() + i * sizeof element, sizeof element);
    out[i] = static_cast<To>(element);
  }
  return out;
}

std::optional<std::vector<std::int64_t>> as_ints(const GgufValue& value) {
  const auto* array = std::get_if<GgufArray>(&value);
  if (!array) return std::nullopt;
  switch (array->type) {
    case GgufType::U8:
    case GgufType::Bool: return unpack<std::uint8_t, std::int64_t>(*array);
    case GgufType::I8: return unpack<std::int8_t, std::int64_t>(*array);
    case GgufType::U16: return unpack<std::uint16_t, std::int64_t>(*array);
    case GgufType::I16: return unpack<std::int16_t, std::int64_t>(*array);
    case GgufType::U32: return unpack<std::uint32_t, std::int64_t>(*array);
    case GgufType::I32: return unpack<std::int32_t, std::int64_t>(*array);
    case GgufType::I64: return unpack<std::int64_t, std::int64_t>(*array);
    default: return std::nullopt;  // u64 among them: its values need not fit
  }
}

std::optional<std::vector<float>> as_floats(const GgufValue& value) {
  const auto* array = std::get_if<GgufArray>(&value);
  if (array && array->type == GgufType::F32) return unpack<float, float>(*array);
  if (array && array->type == GgufType::F64) return unpack<double, float>(*array);
  return std::nullopt;
}

std::string describe(const GgufValue& value) {
  const auto visitor = [&](const auto& v) -> std::string {
    using T = std::decay_t<decltype(v)>;
    if constexpr (std::is_same_v<T, GgufArray>)
      return fmt::format("array of {} {}", v.count, gguf_type_name(v.type));
    else if constexpr (std::is_same_v<T, std::string_view>)
      return fmt::format("a string of {} bytes", v.size());
    else
      return fmt::format("{} {}", gguf_type_name(gguf_type_of(value)), v);
  };
  return std::visit(visitor, value);
}

constexpr std::uint64_t kMaxU32 = std::numeric_limits<std::uint32_t>::max();
constexpr std::uint64_t kMaxU64 = std::numeric_limits<std::uint64_t>::max();

}  // namespace

template <typename Convert>
auto GgufFile::optional_as(std::string_view key, std::string_view expected, Convert convert) const
    -> decltype(convert(std::declval<const GgufValue&>())) {
  const GgufValue* value = find_value(key);
  if (!value) return std::nullopt;
  auto converted = convert(*value);
  if (!converted) throw BadFile("{}: key \"{}\": expected {}, found {}", origin_, key, expected, describe(*value));
  return converted;
}

template <typename T>
T GgufFile::present(std::optional<T> value, std::string_view key) const {
  if (!value) throw BadFile("{}: key \"{}\" is missing", origin_, key);
  return *std::move(value);
}

std::optional<std::uint32_t> GgufFile::optional_u32(std::string_view key) const {
  const auto value =
      optional_as(key, "an integer that fits u32", [](const GgufValue& v) { return as_unsigned(v, kMaxU32); });
  return value ? std::optional(static_cast<std::uint32_t>(*value)) : std::nullopt;
}

std::optional<std::uint64_t> GgufFile::optional_u64(std::string_view key) const {
  return optional_as(key, "an integer that fits u64", [](const GgufValue& v) { return as_unsigned(v, kMaxU64); });
}

std::optional<float> GgufFile::optional_f32(std::string_view key) const { return optional_as(key, "f32", as_float); }

std::optional<bool> GgufFile::optional_bool(std::string_view key) const { return optional_as(key, "bool", as<bool>); }

std::optional<std::string_view> GgufFile::optional_string(std::string_view key) const {
  return optional_as(key, "a string", as<std::string_view>);
}

std::optional<std::span<const std::string_view>> GgufFile::optional_string_array(std::string_view key) const {
  return optional_as(key, "an array of strings", as_strings);
}

std::optional<std::vector<std::int64_t>> GgufFile::optional_int_array(std::string_view key) const {
  return optional_as(key, "an array of integers", as_ints);
}

std::optional<std::vector<float>> GgufFile::optional_f32_array(std::string_view key) const {
  return optional_as(key, "an array of f32", as_floats);
}

std::uint32_t GgufFile::get_u32(std::string_view key) const { return present(optional_u32(key), key); }
std::uint64_t GgufFile::get_u64(std::string_view key) const { return present(optional_u64(key), key); }
float GgufFile::get_f32(std::string_view key) const { return present(optional_f32(key), key); }
bool GgufFile::get_bool(std::string_view key) const { return present(optional_bool(key), key); }
std::string_view GgufFile::get_string(std::string_view key) const { return present(optional_string(key), key); }

std::span<const std::string_view> GgufFile::get_string_array(std::string_view key) const {
  return present(optional_string_array(key), key);
}

std::vector<std::int64_t> GgufFile::get_int_array(std::string_view key) const {
  return present(optional_int_array(key), key);
}

std::vector<float> GgufFile::get_f32_array(std::string_view key) const { return present(optional_f32_array(key), key); }

}  // namespace temper::files
