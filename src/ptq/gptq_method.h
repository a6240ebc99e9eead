// GPTQ, AWQ and SmoothQuant as methods of post-training quantization.
#pragma once

#include <memory>

#include "ptq/method.h"

namespace temper::ptq {

/// Rounds every projection by GPTQ, each block's inputs being those that the rounded blocks before it give; embedding and
/// head to nearest. Groups are fit for the smallest squared error (fit_mse) where the format's own fit does not search
/// already.
std::unique_ptr<Method> make_gptq(const recipe::QuantOptions& options);

/// Folds recipe.quant.transform's factors (AWQ's, for the formats of the scheme, or SmoothQuant's) into the base first, then
/// goes on with `rounding`.
std::unique_ptr<Method> make_scaled(const recipe::Recipe& recipe, std::unique_ptr<Method> rounding);

}  // namespace temper::ptq
