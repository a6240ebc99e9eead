// Distillation (Hinton et al. 2015): the loss of a labelled token is (1 − w) · NLL + w · τ² · KL(teacher ‖ student), both
// softmaxes of KL at temperature τ.
#pragma once

#include "train/teacher.h"
#include "train/teacher_cache.h"

namespace temper::train {

class Distillation final : public Objective {
 public:
  /// As run.recipe.distill says. With top_k, the teacher runs once over the data, if its file is not there yet.
  Distillation(const ExecContext& ctx, const ObjectiveRun& run);

  StepLoss step(const ExecContext& ctx, model::Transformer& transformer, const text::StepBatches& batches,
                const model::BaseGradients* base) override;  ///< Figures: nll and kl, nats per labelled token.
  Teacher* other() override { return teacher_.get(); }
  std::string description() const override;

 private:
  /// A micro-batch; returns Σ nll and Σ kl.
  std::pair<double, double> micro_batch(const ExecContext& ctx, model::Transformer& transformer, const text::Batch& batch,
                                        float scale, const model::BaseGradients* base);

  ops::DistillationMix mix_;
  std::unique_ptr<Teacher> teacher_;  // null where it has nothing to say any more
  std::unique_ptr<TeacherCache> cache_;
  std::string description_;
};

}  // namespace temper::train
