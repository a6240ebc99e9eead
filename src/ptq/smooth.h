// SmoothQuant (Xiao et al. 2023): outliers of activations are moved into the weights, where a product takes both in 8 bits.
#pragma once

#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace temper::ptq {

/// s = max|x|^α / max|w|^(1-α) of each factor, over the channels that share it (`share`, as in awq.h); 1 where inputs or
/// weights are all zero. `largest`: max |x| of each channel; `consumers`: F32 [N, K] each. α from 0 (weights untouched by
/// activations' outliers) to 1.
std::vector<float> smooth_factors(std::span<const TensorView> consumers, std::span<const float> largest,
                                  std::span<const std::int32_t> share, double alpha);

}  // namespace temper::ptq
