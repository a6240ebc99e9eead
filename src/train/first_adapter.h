// Training that begins from an adapter: of another run, or as peft wrote it (lora.adapter).
#pragma once

#include "model/adapters.h"
#include "model/checkpoint_reader.h"
#include "model/trained_weights.h"
#include "recipe/recipe.h"

namespace temper::train {

/// The recipe with the config of its lora.adapter spelt out: rank, alpha, linears, what is trained beside. Dropout is a
/// matter of training, and not taken. Throws BadFile where there is no adapter, BadRecipe naming option and both values
/// where the recipe asks for others (an option left at its default asks for nothing). Without lora.adapter, or where a
/// resumed run does not need it any more, the recipe as it is.
recipe::Recipe with_adapter_config(recipe::Recipe recipe);

/// Copies the values of lora.adapter into masters. `weights` (may be null) are those trained beside the adapters. Throws
/// BadFile where tensors are not those that the base implies; BadRecipe where the adapter says that it was trained on
/// another base, unless lora.adapter_any_base. An adapter that knows its base by name only, and another one, gets a warning.
void take_first_adapter(const ExecContext& ctx, const recipe::LoraOptions& lora, const model::CheckpointReader& reader,
                        model::Adapters& adapters, model::TrainedWeights* weights);

}  // namespace temper::train
