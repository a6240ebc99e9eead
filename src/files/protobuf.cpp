#include "files/protobuf.h"

#include <cstring>

#include "base/error.h"

namespace temper::files {

std::span<const std::byte> ProtobufReader::take(std::uint64_t size) {
  if (size > rest_.size()) {
    throw BadFile("{}: field {}: expected {} bytes, found {} before the end", origin_, field_, size, rest_.size());
  }
  const auto taken = rest_.first(static_cast<std::size_t>(size));
  rest_ = rest_.subspan(taken.size());
  return taken;
}

std::uint64_t ProtobufReader::varint() {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto byte = std::to_integer<std::uint64_t>(take(1).front());
    value |= (byte & 0x7FU) << shift;
    if ((byte & 0x80U) == 0) return value;
  }
  throw BadFile("{}: field {}: an integer of more than 64 bits", origin_, field_);
}

bool ProtobufReader::next() {
  if (rest_.empty()) return false;
  const std::uint64_t tag = varint();
  field_ = static_cast<std::uint32_t>(tag >> 3);
  if (field_ == 0 || tag >> 32 != 0) throw BadFile("{}: expected a field's number, found {}", origin_, tag >> 3);
  switch (tag & 7U) {
    case 0: integer_ = varint(); break;
    case 1: bytes_ = take(8); break;
    case 2: bytes_ = take(varint()); break;
    case 5: bytes_ = take(4); break;
    default: throw BadFile("{}: field {}: expected wire type 0, 1, 2 or 5, found {}", origin_, field_, tag & 7U);
  }
  kind_ = static_cast<Kind>(tag & 7U);
  return true;
}

void ProtobufReader::expect(Kind kind, std::string_view name) const {
  if (kind_ == kind) return;
  throw BadFile("{}: field {}: expected {}, found wire type {}", origin_, field_, name, static_cast<int>(kind_));
}

std::uint64_t ProtobufReader::integer() const {
  expect(Kind::kInteger, "an integer");
  return integer_;
}

float ProtobufReader::f32() const {
  expect(Kind::kFixed32, "a float");
  float value = 0;
  std::memcpy(&value, bytes_.data(), sizeof value);
  return value;
}

std::span<const std::byte> ProtobufReader::bytes() const {
  expect(Kind::kBytes, "bytes");
  return bytes_;
}

std::string_view ProtobufReader::text() const {
  const auto found = bytes();
  return {reinterpret_cast<const char*>(found.data()), found.size()};
}

}  // namespace temper::files
