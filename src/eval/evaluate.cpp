#include "eval/evaluate.h"

#include <chrono>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"

namespace temper::eval {
namespace {

text::RowFormat row_format(recipe::DataFormat format) {
  switch (format) {
    case recipe::DataFormat::Auto: return text::RowFormat::Auto;
    case recipe::DataFormat::Messages: return text::RowFormat::Messages;
    case recipe::DataFormat::PromptCompletion: return text::RowFormat::PromptCompletion;
    case recipe::DataFormat::Alpaca: return text::RowFormat::Alpaca;
    case recipe::DataFormat::ShareGpt: return text::RowFormat::ShareGpt;
    case recipe::DataFormat::Text: return text::RowFormat::Text;
  }
  throw LogicError("evaluate: unknown row format");
}

BootstrapOptions bootstrap_options(const recipe::EvalOptions& eval) {
  return {eval.bootstrap, static_cast<std::uint64_t>(eval.seed)};
}

/// Scores samples alone, or side by side with the reference: then one pass of each model gives every figure.
Figures measure(const ExecContext& ctx, LoadedModel& model, LoadedModel* reference, std::span<const text::Sample> samples,
                const recipe::EvalOptions& eval, const std::string& progress) {
  Figures figures;
  if (reference == nullptr) {
    ScoreOptions options;
    options.bootstrap = bootstrap_options(eval);
    options.progress = progress;
    figures.score = score(ctx, model.transformer(), samples, options);
    return figures;
  }
  CompareOptions options;
  options.bootstrap = bootstrap_options(eval);
  options.progress = progress;
  figures.comparison = compare(ctx, model.transformer(), reference->transformer(), samples, options);
  for (const RowComparison& row : figures.comparison->rows) figures.score.rows.push_back({row.row, row.nll, row.tokens});
  figures.score.tokens = figures.comparison->tokens;
  figures.score.nll = figures.comparison->nll;
  return figures;
}

TextFigures measure_text(const ExecContext& ctx, LoadedModel& model, LoadedModel* reference,
                         const recipe::EvalOptions& eval) {
  if (eval.context > model.arch().max_positions)
    throw BadRecipe("eval.context ({}) exceeds the model's {} positions", eval.context, model.arch().max_positions);
  TextFigures figures;
  figures.windows =
      cut_windows(read_file(eval.text), model.tokenizer(), {eval.windows, eval.context, eval.stride, eval.rows});
  static_cast<Figures&>(figures) = measure(ctx, model, reference, figures.windows.samples, eval, "perplexity");
  figures.windows.samples.clear();
  figures.perplexity = perplexity_of(figures.score.nll);
  if (figures.comparison) figures.reference_perplexity = perplexity_of(figures.comparison->reference_nll);
  return figures;
}

}  // namespace

text::Dataset load_rows(const std::string& path, const recipe::DataOptions& data, const text::Tokenizer& tokenizer,
                        std::int64_t max_rows, bool pairs) {
  text::DatasetOptions options;
  options.format = row_format(data.format);
  options.max_length = data.seq_len;
  options.max_rows = max_rows;
  options.pairs = pairs;
  return text::load_dataset(path, tokenizer, options);
}

EvalReport evaluate(const ExecContext& ctx, LoadedModel& model, LoadedModel* reference, const recipe::Recipe& recipe) {
  const auto start = std::chrono::steady_clock::now();
  const std::string& rows_path = recipe.data.path.empty() ? recipe.data.eval_path : recipe.data.path;
  if (rows_path.empty() && recipe.eval.text.empty() && recipe.eval.choices.empty())
    throw BadRecipe("nothing to measure: give --data (answer NLL), --text (perplexity) or --choices (accuracy)");
  if (reference != nullptr) require_same_vocabulary(model, *reference);
  EvalReport report;
  report.model = model.description();
  if (reference != nullptr) report.reference = reference->description();
  report.compute = ctx.compute == DType::BF16 ? "bf16" : "f32";
  report.bootstrap = recipe.eval.bootstrap;
  if (model.encoded() != nullptr) {
    report.weight_bytes = stored_bytes(model);
    report.bits_per_weight =
        8.0 * static_cast<double>(report.weight_bytes) / static_cast<double>(model.reader().weight_count());
  }
  if (!rows_path.empty()) {
    status(fmt::format("reading {}", rows_path));
    const std::int64_t max_rows = recipe.eval.rows > 0 ? recipe.eval.rows : recipe.data.max_rows;
    const text::Dataset dataset = load_rows(rows_path, recipe.data, model.tokenizer(), max_rows);
    if (dataset.report.rows_cut > 0)
      log_warning("{}: {} rows longer than data.seq_len ({}) were cut; the figures leave {} tokens out", rows_path,
                  dataset.report.rows_cut, recipe.data.seq_len, dataset.report.tokens_cut);
    report.data = measure(ctx, model, reference, dataset.samples, recipe.eval, "answer NLL");
  }
  if (!recipe.eval.text.empty()) report.text = measure_text(ctx, model, reference, recipe.eval);
  if (!recipe.eval.choices.empty()) {
    ScoreOptions options;
    options.bootstrap = bootstrap_options(recipe.eval);
    options.progress = "choices";
    report.choices = score_choices(ctx, model.transformer(), model.tokenizer(),
                                   load_choices(recipe.eval.choices, recipe.eval.rows), options);
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

EvalReport evaluate(const ExecContext& ctx, const recipe::Recipe& recipe) {
  const std::string& path = recipe.model.run.empty() ? recipe.model.path : recipe.model.run;
  if (path.empty()) throw BadRecipe("nothing to evaluate: give --model or --run");
  const std::unique_ptr<LoadedModel> model = LoadedModel::open(ctx, path, recipe.quant.scheme);
  std::unique_ptr<LoadedModel> reference;
  if (!recipe.eval.reference.empty()) reference = LoadedModel::open(ctx, recipe.eval.reference);
  return evaluate(ctx, *model, reference.get(), recipe);
}

}  // namespace temper::eval
