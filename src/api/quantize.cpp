// Verbs that quantize after training: quantize, eval (of a model quantized in memory), imatrix.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "api/engine.h"
#include "api/plan.h"
#include "base/log.h"
#include "eval/evaluate.h"
#include "export/export.h"
#include "ptq/imatrix_collect.h"
#include "ptq/quantizer.h"
#include "temper/temper.h"

namespace temper::api {
namespace {

const std::string& model_path(const Recipe& recipe) {
  return recipe.model.run.empty() ? recipe.model.path : recipe.model.run;
}

bool plain_rounding(const Recipe& recipe) {
  return recipe.quant.method == recipe::QuantMethod::Rtn && recipe.quant.transform == recipe::QuantTransform::None;
}

/// The model with codes as `quantizer` makes them.
std::unique_ptr<eval::LoadedModel> open(const ExecContext& ctx, const Recipe& recipe, ptq::Quantizer& quantizer) {
  const eval::CodeMaker maker = quantizer.maker();
  return eval::LoadedModel::open(ctx, model_path(recipe), recipe.quant.scheme, &maker);
}

exporter::ExportReport quantize_by_method(const ExecContext& ctx, const Recipe& recipe) {
  exporter::quantize_target(recipe);  // refuse before any work
  ptq::Quantizer quantizer(recipe);
  const auto model = open(ctx, recipe, quantizer);
  exporter::MadeCodes codes{*model, std::nullopt, quantizer.description()};
  if (recipe.quant.method == recipe::QuantMethod::Importance) {
    codes.importance.emplace(exporter::ImportanceNote{recipe.quant.imatrix, recipe.calibration.path, 0, 0});
    if (const ptq::ImportanceMatrix* matrix = quantizer.importance()) {
      if (!matrix->datasets.empty()) codes.importance->dataset = matrix->datasets.front();
      codes.importance->entries = static_cast<std::int64_t>(matrix->entries.size());
      codes.importance->chunks = matrix->chunks;
    }
  }
  return exporter::quantize(ctx, recipe, &codes);
}

}  // namespace

Outcome quantize(const Recipe& recipe) {
  const Engine engine(recipe.runtime);
  if (has_budget(recipe)) return quantize_within(engine.context(), recipe);
  const bool streamed = plain_rounding(recipe) && recipe.model.run.empty();
  const exporter::ExportReport report =
      streamed ? exporter::quantize(engine.context(), recipe) : quantize_by_method(engine.context(), recipe);
  return {exporter::to_text(report), exporter::to_json(report).dump()};
}

Outcome evaluate(const Recipe& recipe) {
  const Engine engine(recipe.runtime);
  const ExecContext& ctx = engine.context();
  if (plain_rounding(recipe)) {
    const eval::EvalReport report = eval::evaluate(ctx, recipe);
    return {eval::to_text(report), eval::to_json(report).dump()};
  }
  ptq::Quantizer quantizer(recipe);
  const auto model = open(ctx, recipe, quantizer);
  std::unique_ptr<eval::LoadedModel> reference;
  if (!recipe.eval.reference.empty()) reference = eval::LoadedModel::open(ctx, recipe.eval.reference);
  eval::EvalReport report = eval::evaluate(ctx, *model, reference.get(), recipe);
  report.model += fmt::format(", {}", quantizer.description());
  return {eval::to_text(report), eval::to_json(report).dump()};
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
