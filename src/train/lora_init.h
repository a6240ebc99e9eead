// Adapters that begin as a part of the base's weights, and the base that goes with them: LoftQ (Li et al. 2023), PiSSA (Meng
// et al. 2024).
//
// Both round W less an adapter in place of W: PiSSA the adapter that training begins with, LoftQ of n iterations that of
// iteration n − 1 (of one iteration: none). It lies in the run's folder, RUN/start, and whoever opens the run rounds the
// same base again (model::open_base).
#pragma once

#include <filesystem>

#include "model/adapters.h"
#include "model/checkpoint_reader.h"
#include "model/weights.h"
#include "recipe/recipe.h"

namespace temper::train {

/// The base of a run in recipe.model.base_format. That of a new run which is rounded less an adapter has this decomposed
/// first, and written to RUN/start; one that is only planned is rounded as it is, which takes as much memory. Throws as
/// model::open_base, and BadRecipe where PiSSA would leave a matrix in 16 bits.
model::CheckpointReader open_run_base(const ExecContext& ctx, const recipe::Recipe& recipe, bool resumed);

/// LoftQ: A and B of every adapter so that base + s·B·A is as near as their rank allows to the weights of `model` (the file
/// that `base` was rounded from): the singular value decomposition of the difference. peft's own does not divide by s, so
/// that its sum is nearest where s is 1. Where rounding has lost nothing, A stays random and B zero.
void begin_with_lost(const ExecContext& ctx, const std::filesystem::path& model, const model::BaseWeights& base,
                     model::Adapters& adapters);

/// PiSSA: A and B of every adapter as the folder `start` has them.
void begin_with_principal(const std::filesystem::path& start, const model::TensorTable& table, model::Adapters& adapters);

}  // namespace temper::train
