// What torchao's classes share: tagged JSON, nibbles, swizzled scales.
#include <algorithm>
#include <array>
#include <cstring>

#include "base/error.h"
#include "files/json.h"
#include "wires/torchao_layouts.h"

namespace temper::wires::torchao {
namespace {

constexpr std::int64_t kTileRows = 128, kTileGroups = 4;

std::int64_t tiles(std::int64_t n, std::int64_t tile) { return (n + tile - 1) / tile; }

std::size_t swizzled_index(std::int64_t row, std::int64_t group, std::int64_t groups) {
  const std::int64_t tile = row / kTileRows * tiles(groups, kTileGroups) + group / kTileGroups;
  const std::int64_t r = row % kTileRows;
  return static_cast<std::size_t>(tile * kTileRows * kTileGroups + r % 32 * 16 + r / 32 * 4 + group % kTileGroups);
}

}  // namespace

Json tagged(std::string_view type, Json data) { return {{"_type", type}, {"_data", std::move(data)}}; }

Json versioned(std::string_view type, Json data, int version) {
  Json value = tagged(type, std::move(data));
  value["_version"] = version;
  return value;
}

Json torch_dtype(std::string_view name) { return tagged("torch.dtype", name); }

std::string_view torch_name(DType dtype) {
  switch (dtype) {
    case DType::BF16: return "bfloat16";
    case DType::F16: return "float16";
    default: return "float32";
  }
}

const Json& data_of(const Json& value, std::string_view type, std::string_view what) {
  const auto found = value.is_object() ? value.find("_type") : value.end();
  if (!value.is_object() || found == value.end() || *found != type || !value.contains("_data"))
    throw Unsupported("{}: expected a {}, found {}", what, type, files::describe(value));
  return value.at("_data");
}

std::string dtype_of(const Json& attributes, std::string_view key, std::string_view what) {
  const Json* value = files::find_key(attributes, key);
  if (!value) throw BadFile("{}: attribute \"{}\" is missing", what, key);
  const Json& name = data_of(*value, "torch.dtype", what);
  if (!name.is_string()) throw BadFile("{}: attribute \"{}\": expected a dtype, found {}", what, key, files::describe(name));
  return name.get<std::string>();
}

std::int64_t block_of(const Json& attributes, const Matrix& matrix) {
  const Json& block = files::require_array(attributes, "block_size", matrix.name);
  if (block.size() == 2 && block[0] == 1 && block[1].is_number_unsigned()) {
    const auto n = block[1].get<std::uint64_t>();
    if (n > 0 && n <= static_cast<std::uint64_t>(matrix.cols) && static_cast<std::uint64_t>(matrix.cols) % n == 0)
      return static_cast<std::int64_t>(n);
  }
  throw Unsupported("{}: block_size {}: expected [1, n] with n dividing {}", matrix.name, block.dump(), matrix.cols);
}

const quant::ScaledFormat& format_of(const Matrix& matrix) {
  const quant::ScaledCodec* scaled = quant::as_scaled(matrix.codec);
  if (!scaled)
    throw LogicError("{}: torchao has no class for {}", matrix.name, matrix.codec ? matrix.codec->name() : "16 bit");
  return scaled->format();
}

std::vector<std::byte> as_bytes(std::span<const std::uint8_t> codes) {
  const auto bytes = std::as_bytes(codes);
  return {bytes.begin(), bytes.end()};
}

std::vector<std::uint8_t> as_codes(std::span<const std::byte> bytes) {
  std::vector<std::uint8_t> codes(bytes.size());
  std::ranges::transform(bytes, codes.begin(), [](std::byte b) { return static_cast<std::uint8_t>(b); });
  return codes;
}

std::string field_name(const Matrix& matrix, std::string_view field) {
  const std::size_t dot = matrix.name.rfind('.');
  return fmt::format("{}._{}_{}", matrix.name.substr(0, dot), matrix.name.substr(dot + 1), field);
}

const files::SafetensorsTensor* FieldReader::find(std::string_view field) const { return find_(field_name(matrix_, field)); }

std::vector<std::byte> FieldReader::operator()(std::string_view field, DType dtype, const Shape& shape) const {
  const auto data = require_tensor(find_, field_name(matrix_, field), dtype, shape).data;
  return {data.begin(), data.end()};
}

const quant::Codec& codec_named(const std::string& name, const Matrix& matrix) {
  if (const quant::Codec* codec = quant::find_codec(name)) return *codec;
  throw Unsupported("{}: temper has no format {}, which its attributes describe", matrix.name, name);
}

std::vector<std::byte> as_f32(std::span<const std::byte> scales, quant::ScaleType type) {
  if (type == quant::ScaleType::F32) return {scales.begin(), scales.end()};
  std::vector<std::byte> wide(scales.size() * 2);
  for (std::size_t i = 0; i < scales.size(); i += 2) {
    wide[2 * i + 2] = scales[i];  // a bf16 is the upper half of an f32
    wide[2 * i + 3] = scales[i + 1];
  }
  return wide;
}

std::vector<std::byte> from_f32(std::span<const std::byte> scales, quant::ScaleType type) {
  if (type == quant::ScaleType::F32) return {scales.begin(), scales.end()};
  std::vector<std::byte> narrow(scales.size() / 2);
  for (std::size_t i = 0; i < narrow.size(); i += 2) {
    narrow[i] = scales[2 * i + 2];
    narrow[i + 1] = scales[2 * i + 3];
  }
  return narrow;
}

bool fits_bf16(std::span<const std::byte> f32) {
  for (std::size_t i = 0; i < f32.size(); i += 4)
    if (f32[i] != std::byte{0} || f32[i + 1] != std::byte{0}) return false;
  return true;
}

std::vector<std::byte> pack_nibbles(std::span<const std::uint8_t> codes) {
  std::vector<std::byte> bytes(codes.size() / 2);
  for (std::size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>((codes[2 * i] & 15) | (codes[2 * i + 1] & 15) << 4);
  return bytes;
}

std::vector<std::uint8_t> unpack_nibbles(std::span<const std::byte> bytes, bool negative) {
  std::vector<std::uint8_t> codes(bytes.size() * 2);
  const auto extended = [negative](unsigned nibble) {
    return static_cast<std::uint8_t>(negative ? (nibble ^ 8) - 8 : nibble);
  };
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto byte = static_cast<unsigned>(bytes[i]);
    codes[2 * i] = extended(byte & 15);
    codes[2 * i + 1] = extended(byte >> 4);
  }
  return codes;
}

Shape swizzled_shape(std::int64_t rows, std::int64_t groups) {
  return {32 * tiles(rows, kTileRows), 16 * tiles(groups, kTileGroups)};
}

std::vector<std::byte> swizzled(std::span<const std::byte> scales, std::int64_t rows, std::int64_t groups) {
  std::vector<std::byte> out(static_cast<std::size_t>(swizzled_shape(rows, groups).numel()));
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t g = 0; g < groups; ++g)
      out[swizzled_index(r, g, groups)] = scales[static_cast<std::size_t>(r * groups + g)];
  return out;
}

std::vector<std::byte> unswizzled(std::span<const std::byte> stored, std::int64_t rows, std::int64_t groups) {
  std::vector<std::byte> out(static_cast<std::size_t>(rows * groups));
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t g = 0; g < groups; ++g)
      out[static_cast<std::size_t>(r * groups + g)] = stored[swizzled_index(r, g, groups)];
  return out;
}

std::span<const Layout* const> layouts() {
  static const std::array table = {&intx_layout(),   &int4_layout(),  &int8_layout(),
                                   &float8_layout(), &nvfp4_layout(), &mx_layout()};
  return table;
}

}  // namespace temper::wires::torchao
