#include "ptq/smooth.h"

#include <algorithm>
#include <cmath>

namespace temper::ptq {

std::vector<float> smooth_factors(std::span<const TensorView> consumers, std::span<const float> largest,
                                  std::span<const std::int32_t> share, double alpha) {
  constexpr double kSmallest = 1e-5, kLargest = 1e5;
  const auto count = static_cast<std::size_t>(*std::ranges::max_element(share)) + 1;
  std::vector<float> inputs(count, 0.0f), weights(count, 0.0f), factors(count, 1.0f);
  for (std::size_t c = 0; c < share.size(); ++c) {
    const auto f = static_cast<std::size_t>(share[c]);
    inputs[f] = std::max(inputs[f], largest[c]);
    for (const TensorView& matrix : consumers)
      for (std::int64_t r = 0; r < matrix.rows(); ++r)
        weights[f] =
            std::max(weights[f], std::fabs(matrix.as<const float>()[r * matrix.row_stride + static_cast<std::int64_t>(c)]));
  }
  for (std::size_t f = 0; f < count; ++f)
    if (inputs[f] > 0.0f && weights[f] > 0.0f)
      factors[f] = static_cast<float>(std::clamp(
          std::pow(static_cast<double>(inputs[f]), alpha) / std::pow(static_cast<double>(weights[f]), 1.0 - alpha),
          kSmallest, kLargest));
  return factors;
}

}  // namespace temper::ptq
