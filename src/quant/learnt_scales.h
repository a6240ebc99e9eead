// Learnt scales (LSQ, Esser et al. 2020): a factor for each group of a matrix, by which the scale that fit found is
// multiplied before it is stored. What the file holds is the product, rounded as it stores scales; codes are rounded with
// it.
#pragma once

#include <span>

#include "quant/codec.h"

namespace temper::quant {

/// Factors below this count as this, so that a group cannot vanish.
inline constexpr float kSmallestFactor = 0.0625f;
inline float used_factor(float factor) { return factor > kSmallestFactor ? factor : kSmallestFactor; }

/// encode of every row of `values` (F32 or BF16 [rows, cols]), then scales times `factors` [rows, groups] and codes rounded
/// with them. Where a row's factors are all 1, that row is encode's. Throws LogicError unless has_learnable_scales. Serial.
void encode_with_factors(const Codec& codec, const TensorView& values, std::span<const float> factors,
                         std::span<std::byte> encoded);

/// grads [rows, groups] += the straight-through gradient of the factors, dw (F32 [rows, cols]) being that of the decoded
/// weights: with v the decoded and w the values (F32 or BF16, as they were encoded) of a group, and z what decode adds to
/// code times scale,
///     Σ dw · (v − z − inside · (w − z)) / factor,
/// inside: w within half a step of what the group can hold. Each group's sum in f32, over 8 lanes in a fixed order. Serial.
void factor_gradients(const Codec& codec, const TensorView& values, std::span<const std::byte> encoded, const TensorView& dw,
                      std::span<const float> factors, std::span<float> grads);

}  // namespace temper::quant
