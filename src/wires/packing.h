// Codes of a few bits as dense streams, lowest bits first: what compressed-tensors, GPTQ, AWQ, bitsandbytes and packed small
// floats have in common. Rows of a matrix are packed on their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace temper::wires {

/// What the stream of a row is padded to.
enum class Unit : std::uint8_t { Byte = 1, Word = 4 };

/// Bytes of one packed row of `cols` codes.
std::size_t packed_row_bytes(std::int64_t cols, int bits, Unit unit);

/// codes [rows, cols], of which the low `bits` (1…8) count, as a stream per row: code i from bit i · bits of the row, words
/// little endian, the end padded with zeros.
std::vector<std::byte> pack_bits(std::span<const std::uint8_t> codes, std::int64_t rows, std::int64_t cols, int bits,
                                 Unit unit);
/// The inverse. `packed` has rows · packed_row_bytes(cols) bytes. What lies in the padding is ignored.
std::vector<std::uint8_t> unpack_bits(std::span<const std::byte> packed, std::int64_t rows, std::int64_t cols, int bits,
                                      Unit unit);

/// [rows, cols] of elements of `size` bytes (1, 2 or 4) as [cols, rows].
std::vector<std::byte> transposed(std::span<const std::byte> elements, std::int64_t rows, std::int64_t cols,
                                  std::size_t size);
/// The same of codes.
std::vector<std::uint8_t> transposed(std::span<const std::uint8_t> codes, std::int64_t rows, std::int64_t cols);

/// Adds `offset` to every code, keeping `bits` of them: what turns integers from two's complement to excess codes and back.
void add_to_codes(std::span<std::uint8_t> codes, int offset, int bits);

}  // namespace temper::wires
