// Ranges of activations that are given, by calibration or learning, rather than found in each token.
#pragma once

#include <cstdint>

namespace temper::quant {

/// The parameters with which every token is rounded, as a file stores them. Integers: x̂ = (q − zero) · scale; fp8: x̂ = q ·
/// scale; NVFP4: `scale` is the global scale g, by which scales of groups are divided.
struct StaticRange {
  float scale = 0.0f;
  std::int32_t zero = 0;

  bool known() const { return scale != 0.0f; }
  bool operator==(const StaticRange&) const = default;
};

/// Gradients of a loss with respect to a range, straight-through (LSQ, Esser et al. 2020; LSQ+, Bhalgat et al. 2020), g
/// being that of x̂: Σ g · (x̂ − x)/scale over what lies inside of the range and Σ g · x̂/scale over the rest; of the zero
/// point −scale · Σ g over the rest.
struct RangeGradient {
  double scale = 0, zero = 0;
};

}  // namespace temper::quant
