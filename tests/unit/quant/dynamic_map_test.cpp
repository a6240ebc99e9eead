// The dynamic maps' codes against a search of all midpoints, and blocks of them.
#include "quant/dynamic_map.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace temper::quant {
namespace {

class DynamicMaps : public ::testing::TestWithParam<bool> {
 protected:
  const DynamicMap& map_ = GetParam() ? signed_dynamic_map() : unsigned_dynamic_map();

  /// The nearest value, the lower of two as near, where "near" is told by f32 midpoints.
  std::uint8_t nearest(float x) const {
    std::uint8_t code = 0;
    while (code < 255 && (map_.values()[code] + map_.values()[code + 1]) / 2.0f < x) ++code;
    return code;
  }
};

TEST_P(DynamicMaps, CodesAreThoseOfTheNearestValues) {
  for (std::uint32_t upper = 0; upper < 65536; ++upper)
    for (const std::uint32_t lower : {0u, 1u, 0x5a5au, 0x8000u, 0xffffu}) {
      const float x = std::bit_cast<float>(upper << 16 | lower);
      ASSERT_EQ(map_.code(x), std::isnan(x) ? 0 : nearest(x)) << x;
    }
  for (int code = 0; code < 255; ++code) {  // at ties, and a step beyond
    const float middle = (map_.values()[code] + map_.values()[code + 1]) / 2.0f;
    EXPECT_EQ(map_.code(middle), code);
    EXPECT_EQ(map_.code(std::nextafter(middle, 2.0f)), code + 1);
  }
}

TEST_P(DynamicMaps, BlocksComeBackWithinHalfAStep) {
  std::vector<float> x(200), back(200);
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = 1e-3f * static_cast<float>(i) * (GetParam() && i % 3 == 0 ? -1.0f : 1.0f);
  std::vector<std::uint8_t> codes(200);
  const float absmax = encode_block(map_, x, codes);
  EXPECT_EQ(absmax, x[199]);
  decode_block(map_, codes, absmax, back);
  // The widest step is 0.9 / 64 of the largest value (0.9 / 128 unsigned).
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(back[i], x[i], absmax * 0.9f / (GetParam() ? 128 : 256) * 1.001f);
  EXPECT_EQ(back[199], x[199]);
}

TEST_P(DynamicMaps, BlocksOfZerosAndSubnormalsAreZeros) {
  for (const float value : {0.0f, 1e-40f}) {
    const std::vector<float> x(5, value);
    std::vector<float> back(5, 1.0f);
    std::vector<std::uint8_t> codes(5);
    decode_block(map_, codes, encode_block(map_, x, codes), back);
    EXPECT_EQ(back, std::vector<float>(5, 0.0f));
  }
}

INSTANTIATE_TEST_SUITE_P(Signs, DynamicMaps, ::testing::Bool());

}  // namespace
}  // namespace temper::quant
