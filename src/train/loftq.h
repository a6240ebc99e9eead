// Adapters that begin as what a quantized base has lost: LoftQ (Li et al. 2023).
#pragma once

#include <filesystem>

#include "model/adapters.h"
#include "model/weights.h"

namespace temper::train {

/// A and B of every adapter so that base + s·B·A is as near as their rank allows to the weights of `model` (the file that
/// `base` was rounded from): the singular value decomposition of the difference. One iteration, so that the base stays as it
/// was rounded, as peft's replace_lora_weights_loftq does; peft's own does not divide by s, so that its sum is nearest where
/// s is 1. Where rounding has lost nothing, A stays random and B zero.
void begin_with_lost(const ExecContext& ctx, const std::filesystem::path& model, const model::BaseWeights& base,
                     model::Adapters& adapters);

}  // namespace temper::train
