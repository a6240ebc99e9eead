// Options of adapters as the recipe has them, and as the model takes them.
#pragma once

#include "model/adapters.h"
#include "recipe/recipe.h"

namespace temper::train {

/// Throws BadRecipe, naming the option, for a rank below 1 and for patterns and layers that are not written as the table of
/// options says.
model::LoraConfig lora_config(const recipe::LoraOptions& options);
/// The other way round; what a config does not say keeps its default.
recipe::LoraOptions lora_options(const model::LoraConfig& config);

/// Throws BadRecipe, naming it, for a key of rank_pattern or alpha_pattern that matches no adapted matrix: it would do
/// nothing.
void require_used_patterns(const model::TensorTable& table, const model::Adapters& adapters);

}  // namespace temper::train
