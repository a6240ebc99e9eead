#include "quant/dynamic_map.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace temper::quant {
namespace {

/// Midpoints of `parts` equal parts of [0.1, 1], times `decade`. The bounds are torch.linspace's in f32: steps from the
/// nearer end, each product and sum rounded once.
void append_decade(int parts, float decade, std::vector<float>& values) {
  const float step = (1.0f - 0.1f) / static_cast<float>(parts);
  const auto bound = [&](int i) {
    const double from_start = static_cast<double>(0.1f) + static_cast<double>(step) * i;
    const double from_end = 1.0 - static_cast<double>(step) * (parts - i);
    return static_cast<float>(i < (parts + 1) / 2 ? from_start : from_end);
  };
  for (int i = 0; i < parts; ++i) values.push_back(decade * ((bound(i) + bound(i + 1)) / 2.0f));
}

}  // namespace

DynamicMap::DynamicMap(bool is_signed) {
  constexpr double kDecades[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0};
  std::vector<float> values;
  for (int i = 0; i < 7; ++i) append_decade(is_signed ? 1 << i : 2 << i, static_cast<float>(kDecades[i]), values);
  if (is_signed)
    for (std::size_t i = 0, n = values.size(); i < n; ++i) values.push_back(-values[i]);
  values.push_back(0.0f);
  values.push_back(1.0f);
  std::ranges::sort(values);
  std::ranges::copy(values, values_.begin());
  for (std::size_t i = 0; i + 1 < values_.size(); ++i) midpoints_[i] = (values_[i] + values_[i + 1]) / 2.0f;
  midpoints_.back() = std::numeric_limits<float>::infinity();
  for (std::uint32_t upper = 0; upper < first_.size(); ++upper) {
    const bool negative = upper >= 0x8000u;
    const float least = std::bit_cast<float>(upper << 16 | (negative ? 0xffffu : 0u));
    const auto below = std::ranges::partition_point(midpoints_, [least](float midpoint) { return midpoint < least; });
    first_[upper] = static_cast<std::uint8_t>(below - midpoints_.begin());
  }
}

std::uint8_t DynamicMap::code(float x) const {
  if (!(x == x)) return 0;
  // Which of the two is a toss-up: a branch would be guessed wrongly half of the time.
  const std::uint8_t code = first_[std::bit_cast<std::uint32_t>(x) >> 16];
  return static_cast<std::uint8_t>(code + (midpoints_[code] < x ? 1 : 0));
}

const DynamicMap& signed_dynamic_map() {
  static const DynamicMap map(true);
  return map;
}

const DynamicMap& unsigned_dynamic_map() {
  static const DynamicMap map(false);
  return map;
}

float encode_block(const DynamicMap& map, std::span<const float> x, std::span<std::uint8_t> codes) {
  float largest[8] = {};  // of every eighth: one maximum after another would wait for itself
  for (std::size_t i = 0; i < x.size(); ++i) largest[i % 8] = std::max(largest[i % 8], std::fabs(x[i]));
  const float absmax = *std::ranges::max_element(largest);
  const float inverse = absmax >= 0x1p-126f ? 1.0f / absmax : 0.0f;
  for (std::size_t i = 0; i < x.size(); ++i) codes[i] = map.code(x[i] * inverse);
  return absmax;
}

void decode_block(const DynamicMap& map, std::span<const std::uint8_t> codes, float absmax, std::span<float> x) {
  const std::span<const float, 256> values = map.values();
  for (std::size_t i = 0; i < codes.size(); ++i) x[i] = values[codes[i]] * absmax;
}

}  // namespace temper::quant
