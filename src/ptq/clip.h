// Clipped ranges: a format's own fit, given a group whose range was narrowed, and its own round, given the group as it is.
#pragma once

#include <span>
#include <vector>

#include "ops/ops.h"
#include "quant/codec.h"

namespace temper::ptq {

/// True where narrowing a group's range means something: the fit looks at its largest magnitude or its extremes. Not so for
/// formats whose fit is a search already (K-quants, IQ4) nor for nested absmaxes (nf4-dq).
bool can_clip(const quant::Codec& codec);
/// Throws BadRecipe, naming `method`, unless can_clip.
void require_clip(const quant::Codec& codec, std::string_view method);

/// Parameters of every row of `values` F32 [rows, cols]: of all factors 0.40, 0.42 … 1.20 by which a group's range can be
/// multiplied, that one whose rounding has the smallest Σ importance · (decoded − value)², the first of equals tried from 1
/// on; never worse than factor 1, the format's plain fit. `importance` of each column, or empty: all 1. Where rows share
/// parameters (a tensor, 128 rows), `values` is the whole matrix and one factor is found for all that share; NVFP4's tensor
/// scale stays that of the whole range. `params` has rows · params_per_row(cols) floats, joined.
void fit_mse(const quant::Codec& codec, const TensorView& values, std::span<const float> importance,
             std::span<float> params);

/// Parameters of every row from its groups' values clamped to the percentile (0 to 100) of their magnitudes, or, in a format
/// with a zero point, to (100 − percentile, percentile) of their values; linear between order statistics, as numpy's
/// percentile. Joined.
void fit_percentile(const quant::Codec& codec, const TensorView& values, double percentile, std::span<float> params);

/// round of every row with these parameters; rows on all threads.
std::vector<std::byte> round_all(const quant::Codec& codec, const TensorView& values, std::span<const float> params);

}  // namespace temper::ptq
