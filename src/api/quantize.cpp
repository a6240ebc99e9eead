// Verbs that quantize after training: quantize, eval (of a model quantized in memory), imatrix.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "api/engine.h"
#include "api/plan.h"
#include "base/log.h"
#include "eval/evaluate.h"
#include "export/export.h"
#include "model/checkpoint_reader.h"
#include "model/targets.h"
#include "ptq/best.h"
#include "ptq/imatrix_collect.h"
#include "ptq/quantizer.h"
#include "temper/temper.h"

namespace temper::api {
namespace {

const std::string& model_path(const Recipe& recipe) {
  return recipe.model.run.empty() ? recipe.model.path : recipe.model.run;
}

bool plain_rounding(const Recipe& recipe) {
  return recipe.quant.method == recipe::QuantMethod::Rtn && recipe.quant.transform == recipe::QuantTransform::None &&
         recipe.calibration.path.empty();
}

/// A model with codes, and how they were made.
struct Made {
  std::unique_ptr<eval::LoadedModel> model;
  Recipe recipe;                     ///< With the method and transform that made them.
  std::string how;                   ///< One line.
  std::optional<ptq::Best> best;     ///< Of method best; without the model.
  ptq::ImportanceMatrix importance;  ///< That was read from a file; else without entries.
};

/// Refuses a target that cannot carry the scheme: in a model, tensor by tensor; in a run, whose base is only known when it
/// is opened, at all.
void check_target(const Recipe& recipe) {
  const std::string target = exporter::quantize_target(recipe);
  if (!recipe.model.run.empty()) return;
  const auto reader = model::CheckpointReader::open(recipe.model.path);
  model::require_target(target, reader.table(), quant::scheme(recipe.quant.scheme), reader.arch().dtype,
                        model::PartsFit::Together);
}

/// Tries every way that serves the scheme. They are fit to three quarters of the calibration data and judged on the rest.
Made make_best(const ExecContext& ctx, const Recipe& recipe) {
  const auto reference = eval::LoadedModel::open(ctx, model_path(recipe));
  const std::vector<text::Sample> samples =
      ptq::calibration_samples(recipe.calibration, recipe.data, reference->tokenizer());
  if (samples.size() < 2)
    throw BadData("{}: method best needs two sequences or rows, one to fit and one to judge; found {}",
                  recipe.calibration.path, samples.size());
  const std::size_t held = std::max<std::size_t>(1, samples.size() / 4);
  const std::span<const text::Sample> all(samples);
  const ptq::Calibration fit = ptq::batched(all.first(samples.size() - held), recipe.calibration.path);
  ptq::Chooser chooser(ctx, recipe, *reference, &fit, all.last(held));
  Made made{nullptr, recipe, {}, chooser.best(recipe.quant.scheme, ptq::ways_for(quant::scheme(recipe.quant.scheme))), {}};
  made.model = std::move(made.best->model);
  made.how = made.best->how;
  made.recipe.quant.method = made.best->way.method;
  made.recipe.quant.transform = made.best->way.transform;
  return made;
}

Made make(const ExecContext& ctx, const Recipe& recipe) {
  if (recipe.quant.method == recipe::QuantMethod::Best) return make_best(ctx, recipe);
  ptq::Quantizer quantizer(recipe);
  const eval::CodeMaker maker = quantizer.maker();
  Made made{eval::LoadedModel::open(ctx, model_path(recipe), recipe.quant.scheme, &maker),
            recipe,
            quantizer.description(),
            std::nullopt,
            {}};
  if (quantizer.importance()) made.importance = *quantizer.importance();
  return made;
}

exporter::ExportReport export_made(const ExecContext& ctx, const Made& made) {
  const Recipe& recipe = made.recipe;
  exporter::MadeCodes codes{*made.model, std::nullopt, made.how};
  if (recipe.quant.method == recipe::QuantMethod::Importance) {
    const ptq::ImportanceMatrix& matrix = made.importance;
    codes.importance.emplace(exporter::ImportanceNote{recipe.quant.imatrix, recipe.calibration.path, 0, 0});
    if (!matrix.datasets.empty()) codes.importance->dataset = matrix.datasets.front();
    codes.importance->entries = static_cast<std::int64_t>(matrix.entries.size());
    codes.importance->chunks = matrix.chunks;
  }
  return exporter::quantize(ctx, recipe, &codes);
}

/// A report as text and as JSON, with the ways that were tried where there were several.
template <typename Report>
Outcome outcome(const Report& report, const std::optional<ptq::Best>& best) {
  std::string text = to_text(report);
  auto json = to_json(report);
  if (best) {
    text = ptq::to_text(*best) + "\n" + text;
    json["method"] = best->way.name;
    json["ways"] = ptq::to_json(*best);
  }
  return {std::move(text), json.dump()};
}

}  // namespace

Outcome quantize(const Recipe& recipe) {
  const Engine engine(recipe.runtime);
  if (has_budget(recipe)) return quantize_within(engine.context(), recipe);
  const ExecContext& ctx = engine.context();
  if (plain_rounding(recipe) && recipe.model.run.empty()) return outcome(exporter::quantize(ctx, recipe), std::nullopt);
  check_target(recipe);  // refuse before any work
  const Made made = make(ctx, recipe);
  return outcome(export_made(ctx, made), made.best);
}

Outcome evaluate(const Recipe& recipe) {
  const Engine engine(recipe.runtime);
  const ExecContext& ctx = engine.context();
  if (plain_rounding(recipe)) return outcome(eval::evaluate(ctx, recipe), std::nullopt);
  const Made made = make(ctx, recipe);
  std::unique_ptr<eval::LoadedModel> reference;
  if (!recipe.eval.reference.empty()) reference = eval::LoadedModel::open(ctx, recipe.eval.reference);
  eval::EvalReport report = eval::evaluate(ctx, *made.model, reference.get(), recipe);
  report.model += fmt::format(", {}", made.how);
  return outcome(report, made.best);
}

Outcome imatrix(const Recipe& recipe) {
  const Engine engine(recipe.runtime);
  const auto model = eval::LoadedModel::open(engine.context(), recipe.model.path);
  const bool text = !recipe.eval.text.empty();
  const ptq::Calibration data =
      text ? ptq::load_text(recipe.eval.text, recipe.eval.context, recipe.eval.rows, model->tokenizer())
           : ptq::load_calibration(recipe.calibration, recipe.data, model->tokenizer());
  const ptq::ImportanceMatrix matrix =
      ptq::collect_importance(engine.context(), model->transformer(), model->reader().table(), data,
                              static_cast<std::size_t>(recipe.calibration.memory) << 20);
  ptq::write_imatrix(matrix, recipe.out);
  const nlohmann::ordered_json json = {
      {"path", recipe.out}, {"entries", matrix.entries.size()}, {"tokens", data.tokens}, {"sequences", data.sequences}};
  return {fmt::format("{}: importance of {} tensors over {} tokens in {} sequences of {}\n", recipe.out,
                      matrix.entries.size(), data.tokens, data.sequences, data.source),
          json.dump()};
}

}  // namespace temper::api
