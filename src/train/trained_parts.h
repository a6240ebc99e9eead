// What a recipe trains: adapters, the model's own tensors, or both.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "eval/run_info.h"
#include "model/adapters.h"
#include "model/checkpoint_reader.h"
#include "model/trainables.h"
#include "model/trained_weights.h"
#include "model/weights.h"
#include "recipe/recipe.h"
#include "train/qat.h"

namespace temper::train {

class TrainedParts {
 public:
  /// As recipe.train.mode says. Puts masters in place of tensors of `base`, which must outlive this. Throws BadRecipe for a
  /// rank below 1, and as model::tensors_beside.
  TrainedParts(const recipe::Recipe& recipe, const model::CheckpointReader& reader, model::BaseWeights& base);

  /// First values of a new run that are not random: magnitudes of DoRA, LoftQ, PiSSA, or all from lora.adapter. Throws as
  /// take_first_adapter (train/first_adapter.h).
  void begin(const ExecContext& ctx, const recipe::Recipe& recipe, const model::BaseWeights& base);

  Masters masters() const { return {adapters_.get(), weights_.get()}; }
  const model::Trainables& list() const { return list_; }
  /// Trains these, too; their owner writes what ships.
  void add(const std::vector<model::ParameterArray>& arrays) {
    for (const model::ParameterArray& array : arrays) list_.add(array);
  }
  /// Gradients of the model's own tensors that a pass shall add to; null: none.
  const model::BaseGradients* gradients() const { return weights_ ? &weights_->gradients() : nullptr; }
  /// Writes what was trained into the folder of a finished run, and says so in its info: adapter/ or weights.safetensors.
  void save(const ExecContext& ctx, const std::filesystem::path& run, eval::RunInfo& info) const;
  std::string description() const;  ///< "adapters of rank 16, 4.88 M parameters"

 private:
  const model::CheckpointReader& reader_;
  std::unique_ptr<model::Adapters> adapters_;       // null in full fine-tuning, and where weights stay
  std::unique_ptr<model::TrainedWeights> weights_;  // null with adapters alone; beside them, biases, embeddings or head
  model::Trainables list_;
};

}  // namespace temper::train
