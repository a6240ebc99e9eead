#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "api/engine.h"
#include "base/log.h"
#include "export/export.h"
#include "ptq/fold_scales.h"
#include "ptq/quantizer.h"
#include "ptq/rotate.h"
#include "temper/temper.h"

namespace temper::api {
namespace {

using recipe::QuantTransform;

bool rotates(QuantTransform t) {
  return t == QuantTransform::Rotate || t == QuantTransform::RotateAwq || t == QuantTransform::RotateSmoothQuant;
}
bool serves_scheme(QuantTransform t) { return t == QuantTransform::Awq || t == QuantTransform::RotateAwq; }

void scale(const ExecContext& ctx, const Recipe& recipe, const eval::LoadedModel& original, ptq::FoldedModel& folded) {
  const model::CheckpointReader reader = folded.finish(original.reader(), original.arch().dtype);
  model::BaseWeights weights(reader, ctx.compute);
  model::Transformer measured(reader.arch(), weights);
  ptq::ScaleOptions options;
  options.alpha = recipe.quant.smoothquant_alpha;
  options.memory_limit = static_cast<std::size_t>(recipe.calibration.memory) << 20;
  if (serves_scheme(recipe.quant.transform)) {
    const quant::Scheme& scheme = quant::scheme(recipe.quant.scheme);
    model::require_fit(reader.table(), scheme);
    options.codec = [&scheme](const model::TensorInfo& info) { return scheme.codec_for(info.place); };
  }
  scale_inputs(ctx, folded, measured, ptq::load_calibration(recipe.calibration, recipe.data, original.tokenizer()), options);
}

}  // namespace

Outcome transform(const Recipe& recipe) {
  const Engine engine(recipe.runtime);
  const ExecContext& ctx = engine.context();
  const auto original = eval::LoadedModel::open(ctx, recipe.model.path);
  ptq::FoldedModel folded(original->reader());
  if (rotates(recipe.quant.transform)) {
    if (folded.arch().tied) log_info("the head gets weights of its own: behind the norm it differs from the embedding");
    ptq::rotate(folded, static_cast<std::uint64_t>(recipe.quant.rotation_seed));
  }
  if (recipe.quant.transform != QuantTransform::Rotate) scale(ctx, recipe, *original, folded);
  const model::CheckpointReader changed = folded.finish(original->reader(), original->arch().dtype);
  exporter::ExportReport report = exporter::write_transformed(ctx, changed, *original, recipe.out);
  report.promise = fmt::format("{}; {}", ptq::transform_name(recipe.quant.transform), report.promise);
  const eval::Comparison& c = *report.comparison;
  return {fmt::format("{}  {:.1f} MB\nverified: {}\nagainst the model as it was: KL divergence {:.3g} nats a token [{:.3g}, "
                      "{:.3g}], top-1 agreement {:.2f} % over {} tokens\n",
                      report.path, static_cast<double>(report.file_bytes) / 1e6, report.promise, c.kld.value, c.kld.low,
                      c.kld.high, 100 * c.top1_agreement.value, c.tokens),
          exporter::to_json(report).dump()};
}

}  // namespace temper::api
