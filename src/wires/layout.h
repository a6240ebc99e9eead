// What the wires of this room share: names of a module's tensors, parts made and taken, codecs by what they hold.
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "quant/scaled_codec.h"
#include "wires/wire.h"

namespace temper::wires {

/// "model.layers.0.mlp.up_proj" of its weight's name. Throws LogicError for other names.
std::string module_of(const Matrix& matrix);

/// The dtype in which a format's scales are stored, where it is one that files have.
DType scale_dtype(quant::ScaleType type);
/// The type of scale of that dtype; nullopt for others than F32, BF16 and F16.
std::optional<quant::ScaleType> scale_type(DType dtype);
/// "bfloat16", as torch and config files spell a dtype.
std::string torch_name(DType dtype);

/// "int4-ctsym-g128-bf16": the symmetric or asymmetric integers of compressed-tensors with that scale and group (0: the
/// row), or null where temper has none.
const quant::Codec* integer_codec(std::int64_t bits, bool symmetric, std::int64_t group, quant::ScaleType scale);

/// Symmetric or asymmetric integers whose zero points are integers: (q - z) · s.
bool is_affine(const quant::ScaledFormat& format);

/// Throws Unsupported, naming the matrix, unless the codec's groups divide its rows.
void require_fit(const Matrix& matrix, const quant::Codec& codec);

/// Parts in a wire's order: entries and bytes, of which `entries` takes the first and `pack` both.
class Parts {
 public:
  void add(std::string name, DType dtype, const Shape& shape, std::vector<std::byte> bytes = {}) {
    parts_.push_back({{std::move(name), dtype, shape}, std::move(bytes)});
  }
  std::vector<Part> take() && { return std::move(parts_); }
  std::vector<files::SafetensorsEntry> entries() const {
    std::vector<files::SafetensorsEntry> entries;
    for (const Part& part : parts_) entries.push_back(part.entry);
    return entries;
  }

 private:
  std::vector<Part> parts_;
};

/// Values as a tensor's bytes, and a tensor's bytes as values.
template <typename T>
std::vector<std::byte> bytes_of(std::span<const T> values) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::vector<std::byte> bytes(values.size_bytes());
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}
template <typename T>
std::vector<T> values_of(std::span<const std::byte> bytes) {
  static_assert(std::is_trivially_copyable_v<T>);
  std::vector<T> values(bytes.size() / sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

}  // namespace temper::wires
