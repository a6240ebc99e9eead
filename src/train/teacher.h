// Another model beside the one in training: a teacher to imitate, a reference to stay near.
#pragma once

#include <memory>
#include <string>

#include "eval/loaded_model.h"
#include "model/weights.h"
#include "train/memory_plan.h"
#include "train/objective.h"

namespace temper::train {

class Teacher {
 public:
  /// `path` names a model or a run; empty: the base of the run in training, unquantized and without what is trained. That
  /// has no weights of its own: it reads the run's resident ones, or, where these are in training, the file's mapped bytes.
  /// Throws BadRecipe, with `key` in front, where the vocabulary is another.
  Teacher(const ExecContext& ctx, const std::string& path, std::string_view key, const ObjectiveRun& run);

  model::Transformer& transformer() { return loaded_ ? loaded_->transformer() : *own_; }
  /// Its memory beyond what has been counted.
  std::size_t bytes(WeightMemory& counted);
  /// "the base, unquantized", "run r1 (16-bit)"
  std::string description() const;
  /// Tells one teacher from another: of its weights, and of what a run trained on top of them.
  std::string fingerprint() const;

 private:
  const ObjectiveRun run_;
  std::unique_ptr<eval::LoadedModel> loaded_;
  std::unique_ptr<model::BaseWeights> held_;
  std::unique_ptr<model::Transformer> own_;
};

}  // namespace temper::train
