// Parameters that a format cannot store: weights too large for its scales. Stored all the same they would be an infinity, or
// clamped; whoever encodes weights refuses them.
#pragma once

#include <string>

#include "quant/codec.h"

namespace temper::quant {

/// Empty, or what is wrong, naming the matrix and its row: with the first of the encoded rows whose parameters are not those
/// that were fit (Codec::first_overflow). `first_row` is the matrix's row that `encoded` begins with.
std::string overflow_of(const EncodedView& encoded, std::string_view name, std::int64_t first_row = 0);
/// Throws Unsupported with that.
void require_no_overflow(const EncodedView& encoded, std::string_view name, std::int64_t first_row = 0);

/// True if bits of an f16 are an infinity, a NaN, or its largest magnitude.
inline bool overflows_f16(std::uint16_t bits) { return (bits & 0x7fffu) >= 0x7bffu; }

}  // namespace temper::quant
