// Grids of the IQ formats: what groups of 8 (iq3: 4) elements can be. An entry holds the index of each element's value,
// lowest bits first: 2 bits (iq2, iq1) or 3 (iq3); the values are in iq_codecs.cpp.
#pragma once

#include <cstdint>

namespace temper::quant {

extern const std::uint16_t kIq2XxsGrid[256];
extern const std::uint16_t kIq2XsGrid[512];
extern const std::uint16_t kIq2SGrid[1024];
extern const std::uint16_t kIq3XxsGrid[256];
extern const std::uint16_t kIq3SGrid[512];
extern const std::uint16_t kIq1Grid[2048];

}  // namespace temper::quant
