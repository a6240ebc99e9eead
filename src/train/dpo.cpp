#include "train/dpo.h"

#include <cmath>

#include "base/error.h"
#include "base/profile.h"
#include "eval/score.h"

namespace temper::train {
namespace {

/// log(1 + e^x)
double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

/// Σ nll of each segment's labelled rows, and how many these are.
struct Answers {
  std::vector<double> nll;
  std::vector<std::int64_t> tokens;
};

Answers answers_of(const text::Batch& batch, std::span<const float> nll) {
  Answers answers;
  std::size_t next = 0;
  for (const text::Segment& segment : batch.segments) {
    double sum = 0;
    std::int64_t count = 0;
    for (std::int32_t t = segment.begin; t < segment.end; ++t) {
      if (batch.targets[static_cast<std::size_t>(t)] < 0) continue;
      sum += static_cast<double>(nll[next++]);
      ++count;
    }
    answers.nll.push_back(sum);
    answers.tokens.push_back(count);
  }
  return answers;
}

std::int64_t chosen_tokens_of(const text::Batch& batch) {
  const Answers counts = answers_of(batch, std::vector<float>(static_cast<std::size_t>(batch.labelled)));
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < counts.tokens.size(); i += 2) tokens += counts.tokens[i];
  return tokens;
}

}  // namespace

/// Over the pairs of a step.
struct Dpo::Sums {
  double loss = 0, margin = 0, chosen = 0, rejected = 0, nll = 0;
  std::int64_t pairs = 0, preferred = 0, tokens = 0;

  /// Adds pair i of answers under model and reference; returns the derivative of its loss by h.
  double add(const Answers& model, const Answers& reference, std::size_t i, const recipe::DpoOptions& options) {
    const double chosen_reward = options.beta * (reference.nll[i] - model.nll[i]);
    const double rejected_reward = options.beta * (reference.nll[i + 1] - model.nll[i + 1]);
    const double h = chosen_reward - rejected_reward;
    const PreferenceLoss pair = preference_loss(h, options.label_smoothing);
    loss += pair.loss;
    margin += h;
    chosen += chosen_reward;
    rejected += rejected_reward;
    nll += model.nll[i];
    tokens += model.tokens[i];
    preferred += h > 0;
    ++pairs;
    return pair.slope;
  }
  double total(const recipe::DpoOptions& options) const {
    return loss / static_cast<double>(pairs) + options.rpo_alpha * nll / static_cast<double>(tokens);
  }
};

PreferenceLoss preference_loss(double margin, double label_smoothing) {
  const double e = label_smoothing, wrong = 1.0 / (1.0 + std::exp(margin));  // σ(−h)
  return {(1 - e) * softplus(-margin) + e * softplus(margin), e * (1 - wrong) - (1 - e) * wrong};
}

Dpo::Dpo(const ExecContext& ctx, const ObjectiveRun& run)
    : options_(run.recipe.dpo), reference_(ctx, run.recipe.dpo.reference, "dpo.reference", run) {}

StepLoss Dpo::step(const ExecContext& ctx, model::Transformer& transformer, const text::StepBatches& batches,
                   const model::BaseGradients* base) {
  double pairs = 0, tokens = 0;
  for (const text::Batch& batch : batches.micro_batches) {
    pairs += static_cast<double>(batch.segments.size() / 2);
    tokens += static_cast<double>(chosen_tokens_of(batch));
  }
  if (pairs == 0) throw BadData("a step without a pair");
  Sums sums;
  for (const text::Batch& batch : batches.micro_batches) micro_batch(ctx, transformer, batch, base, pairs, tokens, sums);
  return {sums.total(options_),
          {{"margin", sums.margin / pairs},
           {"accuracy", static_cast<double>(sums.preferred) / pairs},
           {"reward_chosen", sums.chosen / pairs},
           {"reward_rejected", sums.rejected / pairs},
           {"nll", sums.nll / tokens}}};
}

void Dpo::micro_batch(const ExecContext& ctx, model::Transformer& transformer, const text::Batch& batch,
                      const model::BaseGradients* base, double pairs, double chosen_tokens, Sums& sums) {
  const eval::ModelBatch model_batch(batch);
  Answers reference;
  {
    const ProfileSection section("reference");
    reference = answers_of(batch, reference_.transformer().nll(ctx, model_batch.view()));
  }
  transformer.forward_backward(
      ctx, model_batch.view(),
      [&](const ExecContext&, const model::HeadCall& call) {
        // Once for the pairs' margins, without which no row's gradient is known.
        std::vector<float> nll(call.rows.size()), scale;
        ops::linear_cross_entropy(ctx, call.hidden, call.head, call.targets, 0.0f, nll, nullptr, call.cap);
        for (std::size_t i = 0; i < nll.size(); ++i)
          if (!std::isfinite(nll[i])) throw Diverged("the loss of token {} of the batch is {}", call.rows[i], nll[i]);
        const Answers model = answers_of(batch, nll);
        for (std::size_t i = 0; i < model.nll.size(); i += 2) {
          // h falls by β for each nat of the chosen answer's NLL, and rises with the rejected one's.
          const double pull = sums.add(model, reference, i, options_) * options_.beta / pairs;
          scale.insert(scale.end(), static_cast<std::size_t>(model.tokens[i]),
                       static_cast<float>(-pull + options_.rpo_alpha / chosen_tokens));
          scale.insert(scale.end(), static_cast<std::size_t>(model.tokens[i + 1]), static_cast<float>(pull));
        }
        ops::HeadGradients gradients = call.gradients;
        gradients.row_scale = scale;
        ops::linear_cross_entropy(ctx, call.hidden, call.head, call.targets, 1.0f, nll, &gradients, call.cap);
      },
      base);
}

std::vector<Figure> Dpo::evaluate(const ExecContext& ctx, model::Transformer& transformer,
                                  const std::vector<text::Sample>& samples) {
  const auto answers = [&](model::Transformer& of) {
    Answers found;
    for (const eval::RowScore& score : eval::score_samples(ctx, of, samples)) {
      found.nll.push_back(score.nll);
      found.tokens.push_back(score.tokens);
    }
    return found;
  };
  const Answers model = answers(transformer), reference = answers(reference_.transformer());
  Sums sums;
  for (std::size_t i = 0; i + 1 < model.nll.size(); i += 2) sums.add(model, reference, i, options_);
  const double pairs = static_cast<double>(sums.pairs);
  return {{"eval_loss", sums.total(options_)},
          {"eval_margin", sums.margin / pairs},
          {"eval_accuracy", static_cast<double>(sums.preferred) / pairs}};
}

std::vector<text::Sample> Dpo::scored(const std::vector<text::Sample>& samples) const {
  std::vector<text::Sample> chosen;
  for (std::size_t i = 0; i < samples.size(); i += 2) chosen.push_back(samples[i]);
  return chosen;
}

std::string Dpo::description() const {
  std::string text =
      fmt::format("preference (DPO, beta {}) with {} as the reference", options_.beta, reference_.description());
  if (options_.label_smoothing > 0) text += fmt::format(", label smoothing {}", options_.label_smoothing);
  if (options_.rpo_alpha > 0) text += fmt::format(", with {} of the chosen answers' NLL", options_.rpo_alpha);
  return text;
}

}  // namespace temper::train
