#include "wires/packing.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace temper::wires {
namespace {

void check_size(const char* what, std::size_t expected, std::size_t found) {
  if (expected != found) throw LogicError("{}: expected {} bytes, found {}", what, expected, found);
}

template <typename T>
void transpose(const std::byte* in, std::int64_t rows, std::int64_t cols, std::byte* out) {
  constexpr std::int64_t kTile = 32;  // both sides of a tile stay in the first cache
  for (std::int64_t r0 = 0; r0 < rows; r0 += kTile)
    for (std::int64_t c0 = 0; c0 < cols; c0 += kTile)
      for (std::int64_t c = c0; c < std::min(cols, c0 + kTile); ++c)
        for (std::int64_t r = r0; r < std::min(rows, r0 + kTile); ++r)
          std::memcpy(out + static_cast<std::size_t>(c * rows + r) * sizeof(T),
                      in + static_cast<std::size_t>(r * cols + c) * sizeof(T), sizeof(T));
}

}  // namespace

std::size_t packed_row_bytes(std::int64_t cols, int bits, Unit unit) {
  const auto size = static_cast<std::size_t>(unit);
  const std::size_t unit_bits = size * 8;
  return (static_cast<std::size_t>(cols) * static_cast<std::size_t>(bits) + unit_bits - 1) / unit_bits * size;
}

std::vector<std::byte> pack_bits(std::span<const std::uint8_t> codes, std::int64_t rows, std::int64_t cols, int bits,
                                 Unit unit) {
  check_size("pack_bits", static_cast<std::size_t>(rows * cols), codes.size());
  const std::size_t row_bytes = packed_row_bytes(cols, bits, unit);
  std::vector<std::byte> packed(static_cast<std::size_t>(rows) * row_bytes);
  const std::uint32_t mask = (1u << bits) - 1;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::uint8_t* in = codes.data() + r * cols;
    std::byte* out = packed.data() + static_cast<std::size_t>(r) * row_bytes;
    std::uint32_t held = 0;
    int held_bits = 0;
    for (std::int64_t i = 0; i < cols; ++i) {
      held |= (in[i] & mask) << held_bits;
      for (held_bits += bits; held_bits >= 8; held_bits -= 8, held >>= 8) *out++ = static_cast<std::byte>(held);
    }
    if (held_bits > 0) *out = static_cast<std::byte>(held);
  }
  return packed;
}

std::vector<std::uint8_t> unpack_bits(std::span<const std::byte> packed, std::int64_t rows, std::int64_t cols, int bits,
                                      Unit unit) {
  const std::size_t row_bytes = packed_row_bytes(cols, bits, unit);
  check_size("unpack_bits", static_cast<std::size_t>(rows) * row_bytes, packed.size());
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * cols));
  const std::uint32_t mask = (1u << bits) - 1;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::byte* in = packed.data() + static_cast<std::size_t>(r) * row_bytes;
    std::uint8_t* out = codes.data() + r * cols;
    std::uint32_t held = 0;
    int held_bits = 0;
    for (std::int64_t i = 0; i < cols; ++i, held >>= bits, held_bits -= bits) {
      for (; held_bits < bits; held_bits += 8) held |= static_cast<std::uint32_t>(*in++) << held_bits;
      out[i] = static_cast<std::uint8_t>(held & mask);
    }
  }
  return codes;
}

std::vector<std::byte> transposed(std::span<const std::byte> elements, std::int64_t rows, std::int64_t cols,
                                  std::size_t size) {
  check_size("transposed", static_cast<std::size_t>(rows * cols) * size, elements.size());
  std::vector<std::byte> out(elements.size());
  switch (size) {
    case 1: transpose<std::uint8_t>(elements.data(), rows, cols, out.data()); break;
    case 2: transpose<std::uint16_t>(elements.data(), rows, cols, out.data()); break;
    case 4: transpose<std::uint32_t>(elements.data(), rows, cols, out.data()); break;
    default: throw LogicError("transposed: elements of {} bytes", size);
  }
  return out;
}

std::vector<std::uint8_t> transposed(std::span<const std::uint8_t> codes, std::int64_t rows, std::int64_t cols) {
  check_size("transposed", static_cast<std::size_t>(rows * cols), codes.size());
  std::vector<std::uint8_t> out(codes.size());
  transpose<std::uint8_t>(reinterpret_cast<const std::byte*>(codes.data()), rows, cols,
                          reinterpret_cast<std::byte*>(out.data()));
  return out;
}

void add_to_codes(std::span<std::uint8_t> codes, int offset, int bits) {
  const unsigned mask = (1u << bits) - 1, add = static_cast<unsigned>(offset);
  for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>((code + add) & mask);
}

}  // namespace temper::wires
