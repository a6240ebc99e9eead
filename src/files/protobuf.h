// Protocol Buffers' wire format, read field by field: https://protobuf.dev/programming-guides/encoding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace temper::files {

/// A message's fields in the order in which they lie there; the reader of one file knows which to look at. Groups, which no
/// current format has, are refused. Names and texts point into the message.
class ProtobufReader {
 public:
  /// `origin` names the message in errors and must outlive the reader.
  ProtobufReader(std::span<const std::byte> message, const std::string& origin) : rest_(message), origin_(origin) {}

  /// Goes on to the next field; false at the end. Throws BadFile for a field that is cut off or of an unknown kind.
  bool next();
  std::uint32_t field() const { return field_; }

  /// The field's value. Throws BadFile if it is of another kind.
  std::uint64_t integer() const;
  bool boolean() const { return integer() != 0; }
  float f32() const;
  std::span<const std::byte> bytes() const;
  std::string_view text() const;

 private:
  enum class Kind : std::uint8_t { kInteger = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
  std::uint64_t varint();
  void expect(Kind kind, std::string_view name) const;
  std::span<const std::byte> take(std::uint64_t size);

  std::span<const std::byte> rest_;
  const std::string& origin_;
  std::uint32_t field_ = 0;
  Kind kind_ = Kind::kInteger;
  std::uint64_t integer_ = 0;
  std::span<const std::byte> bytes_;  // of any kind but integers
};

}  // namespace temper::files
