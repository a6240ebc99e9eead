// The tensor classes of torchao 0.18 that safetensors can hold, as they lie in files: a parameter P.weight is the tensors
// P._weight_<field>, and a JSON text in the header's metadata that names the class, its attributes and its fields.
#pragma once

#include <nlohmann/json.hpp>

#include "quant/scaled_codec.h"
#include "wires/wire.h"

namespace temper::wires::torchao {

using Json = nlohmann::json;

/// A field of a class: the name after `_weight_`, and the tensor.
struct Field {
  std::string name;
  DType dtype;
  Shape shape;
};
/// Bytes of fields, in the order of Layout::fields.
using FieldBytes = std::vector<std::vector<std::byte>>;

/// The fields of a matrix in a file.
class FieldReader {
 public:
  FieldReader(const Matrix& matrix, const FindTensor& find) : matrix_(matrix), find_(find) {}
  /// Null if there is none.
  const files::SafetensorsTensor* find(std::string_view field) const;
  /// The field's bytes. Throws BadFile if it is missing or has another dtype or shape.
  std::vector<std::byte> operator()(std::string_view field, DType dtype, const Shape& shape) const;

 private:
  const Matrix& matrix_;
  const FindTensor& find_;
};

class Layout {
 public:
  virtual ~Layout() = default;
  virtual std::string_view type() const = 0;  ///< The class: "Int4Tensor".
  /// True if this is the class for the codec, whatever its input and shape.
  virtual bool takes(const quant::ScaledFormat& format) const = 0;
  /// Empty, or why a matrix whose format it takes cannot be held after all.
  virtual std::string refusal(const Matrix& matrix) const = 0;

  virtual std::vector<Field> fields(const Matrix& matrix) const = 0;
  virtual Json attributes(const Matrix& matrix) const = 0;
  /// The configuration of quantize_ that makes such a tensor: {"_type", "_version", "_data"}.
  virtual Json config(const Matrix& matrix) const = 0;
  virtual FieldBytes pack(const Matrix& matrix, const quant::ScaledCodec::Parts& parts) const = 0;

  /// Sets codec and input from attributes (checked to be those of a matrix of that shape) and fields. `config` is the
  /// configuration it was made with, or null: it tells a row's only group from a scale by rows.
  virtual void describe(Matrix& matrix, const Json& attributes, const Json& config, const FieldReader& read) const = 0;
  virtual quant::ScaledCodec::Parts unpack(const Matrix& matrix, const FieldReader& read) const = 0;
};

/// All classes; the order is that in which formats are offered.
std::span<const Layout* const> layouts();

// ---- What layouts share ----

/// {"_type": …, "_data": …}
Json tagged(std::string_view type, Json data);
/// The same of a configuration's member, whose encoder adds a version to dataclasses.
Json versioned(std::string_view type, Json data, int version = 1);
Json torch_dtype(std::string_view name);
std::string_view torch_name(DType dtype);  ///< "bfloat16"

/// The data of a tagged value: of {"_type": type, "_data": x}, x. Throws Unsupported naming `what` where the type is
/// another.
const Json& data_of(const Json& value, std::string_view type, std::string_view what);
std::string dtype_of(const Json& attributes, std::string_view key, std::string_view what);
/// The extent of attributes' block_size [1, n], n dividing cols; throws.
std::int64_t block_of(const Json& attributes, const Matrix& matrix);

const quant::ScaledFormat& format_of(const Matrix& matrix);
inline std::int64_t group_of(const Matrix& matrix) {
  const std::int64_t group = format_of(matrix).group;
  return group == 0 ? matrix.cols : group;
}
inline std::int64_t groups_of(const Matrix& matrix) { return matrix.cols / group_of(matrix); }
inline bool has_input(const Matrix& matrix, std::string_view name) { return matrix.input && matrix.input->name() == name; }
/// The name of a field's tensor: P.weight and "scale" → P._weight_scale.
std::string field_name(const Matrix& matrix, std::string_view field);
/// Codes as bytes, and back.
std::vector<std::byte> as_bytes(std::span<const std::uint8_t> codes);
std::vector<std::uint8_t> as_codes(std::span<const std::byte> bytes);

/// The codec of that name; throws Unsupported naming the matrix where there is none.
const quant::Codec& codec_named(const std::string& name, const Matrix& matrix);

/// Scales of bf16 or f32, as f32; and back to the type of the matrix's codec. `fits_bf16` tells which codec it takes.
std::vector<std::byte> as_f32(std::span<const std::byte> scales, quant::ScaleType type);
std::vector<std::byte> from_f32(std::span<const std::byte> scales, quant::ScaleType type);
bool fits_bf16(std::span<const std::byte> f32);

/// Two codes a byte, the even one in the low half; codes as two's complement or indices.
std::vector<std::byte> pack_nibbles(std::span<const std::uint8_t> codes);
/// The inverse; `negative` extends the sign.
std::vector<std::uint8_t> unpack_nibbles(std::span<const std::byte> bytes, bool negative);

/// cuBLAS' tiles of 128 × 4 scales: the shape of the file's tensor, and where the scale of row r, group g lies in it.
Shape swizzled_shape(std::int64_t rows, std::int64_t groups);
std::vector<std::byte> swizzled(std::span<const std::byte> scales, std::int64_t rows, std::int64_t groups);
std::vector<std::byte> unswizzled(std::span<const std::byte> stored, std::int64_t rows, std::int64_t groups);

const Layout& intx_layout();
const Layout& int4_layout();
const Layout& int8_layout();
const Layout& float8_layout();
const Layout& nvfp4_layout();
const Layout& mx_layout();

}  // namespace temper::wires::torchao
