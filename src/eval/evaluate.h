// `temper eval`: one model, optionally against a reference, on rows, a text, and multiple choice.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "eval/choices.h"
#include "eval/compare.h"
#include "eval/loaded_model.h"
#include "eval/perplexity.h"
#include "eval/score.h"
#include "recipe/recipe.h"

namespace temper::eval {

/// Figures on labelled tokens; `comparison` only with a reference.
struct Figures {
  Score score;
  std::optional<Comparison> comparison;
};

struct TextFigures : Figures {
  TextWindows windows;  ///< How it was counted; without the samples.
  Estimate perplexity;
  std::optional<Estimate> reference_perplexity;
};

struct EvalReport {
  std::string model;      ///< LoadedModel::description().
  std::string reference;  ///< Empty without one.
  std::string compute;    ///< "bf16" or "f32": operands of products.
  std::optional<Figures> data;
  std::optional<TextFigures> text;
  std::optional<ChoiceReport> choices;
  std::uint64_t weight_bytes = 0;  ///< Of a model in a scheme: stored_bytes; else 0.
  double bits_per_weight = 0;      ///< The same over all weights.
  std::int64_t bootstrap = 0;      ///< Resamples behind each interval.
  double seconds = 0;
};

/// One object. Rows: `nll` (nats per labelled token), `nll_ci` [low, high], `tokens`, `rows`; with a reference
/// `reference_nll`, `nll_difference`, `kld`, `top1_agreement` and `…_ci` of each, and `max_kld`. Text: `perplexity`,
/// `perplexity_ci`, the figures above with `text_` in front (`text_tokens`: those scored), and `windows`: how it was
/// counted. With a scheme `weight_bytes` and `bits_per_weight`. Choices: `accuracy`, `accuracy_normalized`, `…_ci`,
/// `chance`, `items`.
nlohmann::ordered_json to_json(const EvalReport& report);
/// The same as lines of text for people.
std::string to_text(const EvalReport& report);

/// Opens what recipe.model (a run wins over a path), recipe.quant.scheme and recipe.eval.reference name and evaluates on
/// recipe.data.path (or eval_path), recipe.eval.text and recipe.eval.choices, whichever are given. Throws BadRecipe if none
/// is, and what opening and scoring throw.
EvalReport evaluate(const ExecContext& ctx, const recipe::Recipe& recipe);
/// The same on models at hand; `reference` may be null.
EvalReport evaluate(const ExecContext& ctx, LoadedModel& model, LoadedModel* reference, const recipe::Recipe& recipe);

/// Rows as recipe.data says, tokenized for `tokenizer`: `max_rows` 0 is all. `pairs`: rows of preferences.
text::Dataset load_rows(const std::string& path, const recipe::DataOptions& data, const text::Tokenizer& tokenizer,
                        std::int64_t max_rows, bool pairs = false);

}  // namespace temper::eval
