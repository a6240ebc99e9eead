// Packing of 32 five-bit codes, as q5_0 and q5_1 have them: bit 4 of code j is bit j of qh.
#pragma once

#include <cstdint>
#include <cstring>

namespace temper::quant {

template <typename Codes>
void put_five_bits(Codes&& codes, std::uint8_t* qh, std::uint8_t* qs) {
  std::uint32_t high = 0;
  for (int j = 0; j < 32; ++j) {
    const auto q = static_cast<std::uint32_t>(codes(j));
    qs[j % 16] = static_cast<std::uint8_t>(j < 16 ? q & 15u : qs[j - 16] | (q & 15u) << 4);
    high |= q >> 4 << j;
  }
  std::memcpy(qh, &high, sizeof(high));
}

inline void get_five_bits(const std::uint8_t* qh, const std::uint8_t* qs, std::int32_t* codes) {
  std::uint32_t high;
  std::memcpy(&high, qh, sizeof(high));
  for (int j = 0; j < 32; ++j) {
    const std::uint32_t low = j < 16 ? qs[j] & 15u : static_cast<std::uint32_t>(qs[j - 16] >> 4);
    codes[j] = static_cast<std::int32_t>(low | (high >> j & 1u) << 4);
  }
}

}  // namespace temper::quant
