// Direct preference optimization (Rafailov et al. 2023) on pairs of answers: samples 2i are chosen, 2i + 1 rejected.
//
// With the log-probabilities π of an answer's labelled tokens under the model and ρ under the reference, and
// h = β · ((π_chosen − ρ_chosen) − (π_rejected − ρ_rejected)), the loss of a pair is
//   −(1 − ε) · log σ(h) − ε · log σ(−h)          (ε: label smoothing, Mitchell 2023)
// and the step's loss is the mean over its pairs, plus α · the chosen answers' mean NLL per token (RPO, Pang et al. 2024).
#pragma once

#include "train/teacher.h"

namespace temper::train {

class Dpo final : public Objective {
 public:
  Dpo(const ExecContext& ctx, const ObjectiveRun& run);

  /// Figures: margin (mean of h), accuracy (share of pairs with h > 0), reward_chosen and reward_rejected (means of
  /// β · (π − ρ)), nll (of the chosen answers, per token).
  StepLoss step(const ExecContext& ctx, model::Transformer& transformer, const text::StepBatches& batches,
                const model::BaseGradients* base) override;
  /// eval_loss, eval_margin, eval_accuracy of pairs.
  std::vector<Figure> evaluate(const ExecContext& ctx, model::Transformer& transformer,
                               const std::vector<text::Sample>& samples) override;
  std::vector<text::Sample> scored(const std::vector<text::Sample>& samples) const override;  ///< The chosen ones.
  Teacher* other() override { return &reference_; }
  std::string description() const override;

 private:
  struct Sums;
  void micro_batch(const ExecContext& ctx, model::Transformer& transformer, const text::Batch& batch,
                   const model::BaseGradients* base, double pairs, double chosen_tokens, Sums& sums);

  recipe::DpoOptions options_;
  Teacher reference_;
};

/// What a pair contributes, by `margin` = h: its loss, and the derivative of that by h.
struct PreferenceLoss {
  double loss = 0, slope = 0;
};
PreferenceLoss preference_loss(double margin, double label_smoothing);

}  // namespace temper::train
