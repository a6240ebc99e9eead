#include "train/objective.h"

#include "base/error.h"
#include "eval/score.h"
#include "train/distillation.h"
#include "train/dpo.h"

namespace temper::train {
namespace {

class CrossEntropy final : public Objective {
 public:
  StepLoss step(const ExecContext& ctx, model::Transformer& transformer, const text::StepBatches& batches,
                const model::BaseGradients* base) override {
    if (batches.labelled == 0) throw BadData("a step without a labelled token");
    const float scale = 1.0f / static_cast<float>(batches.labelled);
    double nll = 0;
    for (const text::Batch& batch : batches.micro_batches) {
      const eval::ModelBatch model_batch(batch);
      nll += transformer.forward_backward(ctx, model_batch.view(), scale, base);
    }
    return {nll / static_cast<double>(batches.labelled), {}};
  }
  std::string description() const override { return "cross-entropy of the labelled tokens"; }
};

}  // namespace

std::vector<Figure> Objective::evaluate(const ExecContext&, model::Transformer&, const std::vector<text::Sample>&) {
  return {};
}

std::unique_ptr<Objective> make_objective(const ExecContext& ctx, const ObjectiveRun& run) {
  switch (run.recipe.train.objective) {
    case recipe::ObjectiveKind::CrossEntropy: break;
    case recipe::ObjectiveKind::Distill: return std::make_unique<Distillation>(ctx, run);
    case recipe::ObjectiveKind::Dpo: return std::make_unique<Dpo>(ctx, run);
  }
  return std::make_unique<CrossEntropy>();
}

}  // namespace temper::train
