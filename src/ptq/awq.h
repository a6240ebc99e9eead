// AWQ (Lin et al. 2024): weights of channels that carry large activations are made larger before they are rounded, so that
// they lose less; the channel is divided by the same factor.
#pragma once

#include <span>
#include <vector>

#include "model/taps.h"
#include "ops/ops.h"
#include "quant/codec.h"

namespace temper::ptq {

/// A linear that reads the input.
struct AwqConsumer {
  TensorView weights;                   ///< F32 [N, K]
  const quant::Codec* codec = nullptr;  ///< Null: it stays 16-bit and does not count.
};

/// The factors whose rounding to nearest loses least: of s = rms(x)^α over a grid of α from 0 to 1, each scaled to
/// √(max s · min s) = 1, those with the least Σ tr((W - Q(W·s)/s) H (W - Q(W·s)/s)ᵀ) over the consumers. α = 0 is no change,
/// so the error is never above that of plain rounding. `share[c]` says which factor channel c takes (AwqConsumer's K
/// channels onto the factors 0 … max): rms is over the channels that share. `hessian` F32 [K, K]: Σ x xᵀ. Of large matrices,
/// up to `rows` rows evenly spread are looked at.
std::vector<float> awq_factors(const ExecContext& ctx, std::span<const AwqConsumer> consumers, const TensorView& hessian,
                               std::span<const std::int32_t> share, std::int64_t rows = 512);

}  // namespace temper::ptq
