// What the loss of a step is: the one place where a session asks for gradients.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/checkpoint_reader.h"
#include "model/transformer.h"
#include "model/weights.h"
#include "recipe/recipe.h"
#include "text/packing.h"
#include "train/loop.h"

namespace temper::train {

struct StepLoss {
  double loss = 0;              ///< Whose gradient was taken.
  std::vector<Figure> figures;  ///< Beside it; empty where the loss says it all.
};

class Teacher;

class Objective {
 public:
  virtual ~Objective() = default;

  /// Forward and backward of every micro-batch of a step: adds the gradients of its loss to the adapters', and to those of
  /// `base` where wanted. The loss is that of the whole step, however it is cut. Throws Diverged where it is not finite,
  /// BadData for a step with nothing to learn.
  virtual StepLoss step(const ExecContext& ctx, model::Transformer& transformer, const text::StepBatches& batches,
                        const model::BaseGradients* base) = 0;

  /// How a set of held-out samples fares, beside the NLL of their labelled tokens; empty: that says it all.
  virtual std::vector<Figure> evaluate(const ExecContext& ctx, model::Transformer& transformer,
                                       const std::vector<text::Sample>& samples);
  /// Of `samples`, those whose labelled tokens' NLL is reported.
  virtual std::vector<text::Sample> scored(const std::vector<text::Sample>& samples) const { return samples; }

  /// The model beside the run's whose passes `step` and `evaluate` make, too; null: there is none.
  virtual Teacher* other() { return nullptr; }
  virtual std::string description() const = 0;  ///< One line for the log.
};

/// A run as its objective sees it; all outlive it.
struct ObjectiveRun {
  const recipe::Recipe& recipe;
  const model::CheckpointReader& reader;
  model::BaseWeights& base;  ///< The reader's weights; some may be masters in training.
  const text::Packer& packer;
  const std::string& data_fingerprint;
};

/// As recipe.train.objective says. Opens the teacher or reference that it names. Throws BadRecipe where their vocabulary is
/// another, and what opening throws.
std::unique_ptr<Objective> make_objective(const ExecContext& ctx, const ObjectiveRun& run);

}  // namespace temper::train
