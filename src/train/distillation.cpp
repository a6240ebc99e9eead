#include "train/distillation.h"

#include <cmath>

#include "base/error.h"
#include "base/profile.h"
#include "eval/score.h"

namespace temper::train {

Distillation::Distillation(const ExecContext& ctx, const ObjectiveRun& run) {
  const recipe::DistillOptions& options = run.recipe.distill;
  mix_ = {static_cast<float>(1 - options.weight), static_cast<float>(options.weight),
          static_cast<float>(options.temperature)};
  teacher_ = std::make_unique<Teacher>(ctx, options.teacher, "distill.teacher", run);
  description_ = fmt::format("divergence from {} (weight {}, temperature {})", teacher_->description(), options.weight,
                             options.temperature);
  if (options.top_k > 0 && options.weight > 0 && !run.recipe.train.plan) {  // a plan writes nothing
    cache_ = TeacherCache::open_or_make(ctx, run, *teacher_);
    description_ += fmt::format(", the likeliest {} of each token from {}", options.top_k, cache_->origin());
  }
  if (cache_ || options.weight == 0) teacher_.reset();
}

StepLoss Distillation::step(const ExecContext& ctx, model::Transformer& transformer, const text::StepBatches& batches,
                            const model::BaseGradients* base) {
  if (batches.labelled == 0) throw BadData("a step without a labelled token");
  const float scale = 1.0f / static_cast<float>(batches.labelled);
  double nll = 0, kl = 0;
  for (const text::Batch& batch : batches.micro_batches) {
    const auto [batch_nll, batch_kl] = micro_batch(ctx, transformer, batch, scale, base);
    nll += batch_nll;
    kl += batch_kl;
  }
  nll /= static_cast<double>(batches.labelled);
  kl /= static_cast<double>(batches.labelled);
  const double tau = static_cast<double>(mix_.temperature);
  return {static_cast<double>(mix_.cross_entropy) * nll + static_cast<double>(mix_.divergence) * tau * tau * kl,
          {{"nll", nll}, {"kl", kl}}};
}

std::pair<double, double> Distillation::micro_batch(const ExecContext& ctx, model::Transformer& transformer,
                                                    const text::Batch& batch, float scale,
                                                    const model::BaseGradients* base) {
  const eval::ModelBatch model_batch(batch);
  const model::BatchView view = model_batch.view();
  const std::vector<std::int32_t> rows = model::Transformer::labelled_rows(view);
  if (rows.empty()) return {0.0, 0.0};
  const ArenaScope scope(*ctx.workspace);
  ops::TeacherRows drawn;
  TeacherCache::Rows cached;
  if (cache_) {
    cached = cache_->rows(batch.sequences);
    if (cached.log_rest.size() != rows.size())
      throw LogicError("{} cached rows for {} labelled tokens", cached.log_rest.size(), rows.size());
    drawn.top_k = cache_->top_k();
    drawn.ids = cached.ids;
    drawn.log_probs = cached.log_probs;
    drawn.log_rest = cached.log_rest;
  } else if (teacher_) {
    const ProfileSection section("teacher");
    model::Transformer& teacher = teacher_->transformer();
    drawn.hidden =
        ctx.workspace->allocate(ctx.compute, {static_cast<std::int64_t>(rows.size()), teacher.arch().hidden_size});
    teacher.head_input(ctx, view, rows, drawn.hidden);
    drawn.head = teacher.head(ctx);
    drawn.cap = teacher.arch().logit_softcap;
  }
  double nll = 0, kl = 0;
  transformer.forward_backward(
      ctx, view,
      [&](const ExecContext&, const model::HeadCall& call) {
        std::vector<float> row_nll(rows.size()), row_kl(rows.size());
        ops::linear_distillation(ctx, call.hidden, call.head, call.targets, drawn, mix_, scale, row_nll, row_kl,
                                 &call.gradients, call.cap);
        for (std::size_t i = 0; i < rows.size(); ++i) {
          if (!std::isfinite(row_nll[i]) || !std::isfinite(row_kl[i]))
            throw Diverged("the loss of token {} of the batch is {} (divergence {})", rows[i], row_nll[i], row_kl[i]);
          nll += static_cast<double>(row_nll[i]);
          kl += static_cast<double>(row_kl[i]);
        }
      },
      base);
  return {nll, kl};
}

std::string Distillation::description() const { return description_; }

}  // namespace temper::train
