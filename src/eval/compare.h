// How far a model is from a reference: Kullback–Leibler divergence and top-1 agreement over the labelled tokens, NLL side by
// side.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "eval/loaded_model.h"
#include "eval/score.h"

namespace temper::eval {

/// Sums over the labelled tokens of one row.
struct RowComparison {
  std::int64_t row = 0, tokens = 0;
  double nll = 0, reference_nll = 0;  ///< Nats.
  double kld = 0;                     ///< Σ KL(reference ‖ model), nats.
  std::int64_t agreed = 0;            ///< Tokens at which both find the same id likeliest (the lowest id where several are).
};

struct CompareOptions {
  BootstrapOptions bootstrap;
  std::int64_t tokens_per_pass = kTokensPerPass;
  std::size_t logits_bytes = std::size_t{256} << 20;  ///< The reference's logits held at a time.
  std::string progress = "compare";
};

struct Comparison {
  std::vector<RowComparison> rows;
  std::int64_t tokens = 0;
  Estimate nll, reference_nll;
  Estimate nll_difference;  ///< nll − reference_nll, paired.
  Estimate kld;             ///< Mean over labelled tokens, nats.
  Estimate top1_agreement;  ///< Share of labelled tokens, 0 to 1.
  double max_kld = 0;       ///< Largest of any single token, nats.
};

/// Runs both models over the same batches. log-softmax and sums in double. Throws BadRecipe if the numbers of logits differ,
/// otherwise as score().
Comparison compare(const ExecContext& ctx, model::Transformer& model, model::Transformer& reference,
                   std::span<const text::Sample> samples, const CompareOptions& options = {});

/// Figures of one pair of logit rows: what compare() adds up.
struct TokenComparison {
  double nll = 0, reference_nll = 0, kld = 0;
  bool agreed = false;
};
TokenComparison compare_token(std::span<const float> logits, std::span<const float> reference, std::int32_t target);

/// What a model means by its ids.
struct Vocabulary {
  std::string model;  ///< For messages.
  std::int64_t logits = 0;
  const text::Tokenizer* tokenizer = nullptr;
};
/// Throws BadRecipe, naming the first token that differs, unless both models mean the same by each id.
void require_same_vocabulary(const Vocabulary& model, const Vocabulary& reference);
void require_same_vocabulary(const LoadedModel& model, const LoadedModel& reference);

/// (PTQ − QAT) / (PTQ − tuned) in NLL, where both were compared with the tuned model on the same rows (LogicError
/// otherwise).
Estimate recovered(const Comparison& ptq, const Comparison& qat, const BootstrapOptions& options = {});

}  // namespace temper::eval
