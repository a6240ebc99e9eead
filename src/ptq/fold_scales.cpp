#include "ptq/fold_scales.h"

#include "base/progress.h"
#include "ptq/awq.h"
#include "ptq/input_moments.h"
#include "ptq/runner.h"
#include "ptq/smooth.h"

namespace temper::ptq {
namespace {

using model::LinearInput;

/// Which factor each channel of an input takes.
std::vector<std::int32_t> sharing(const FoldedModel& folded, LinearInput input) {
  std::vector<float> numbers;
  for (std::int64_t f = 0; f < folded.factors(input); ++f) numbers.push_back(static_cast<float>(f));
  std::vector<std::int32_t> share;
  for (const float f : folded.per_channel(input, numbers)) share.push_back(static_cast<std::int32_t>(f));
  return share;
}

std::vector<float> factors_of(const ExecContext& ctx, const FoldedModel& folded, int layer, LinearInput input,
                              const InputMoments& moments, const ScaleOptions& options) {
  const std::vector<std::int32_t> share = sharing(folded, input);
  if (options.codec) {
    std::vector<AwqConsumer> readers;
    for (const model::Linear l : consumers(input))
      readers.push_back({folded.linear(layer, l), options.codec(folded.table()[folded.table().linear(layer, l)])});
    return awq_factors(ctx, readers, moments.hessian(input), share);
  }
  std::vector<TensorView> readers;
  for (const model::Linear l : consumers(input)) readers.push_back(folded.linear(layer, l));
  return smooth_factors(readers, moments.largest(input), share, options.alpha);
}

}  // namespace

void scale_inputs(const ExecContext& ctx, FoldedModel& folded, model::Transformer& measured, const Calibration& calibration,
                  const ScaleOptions& options) {
  LayerRunner runner(ctx, measured, calibration.batches, options.memory_limit);
  Progress progress(options.codec ? "AWQ" : "SmoothQuant", folded.table().layers());
  InputMoments moments;
  for (int layer = 0; layer < folded.table().layers(); ++layer) {
    moments.clear();
    runner.advance(&moments);
    for (const LinearInput input : {LinearInput::Attention, LinearInput::Output, LinearInput::Mlp, LinearInput::Down})
      folded.scale_input(layer, input, factors_of(ctx, folded, layer, input, moments, options));
    progress.update(layer + 1);
  }
}

}  // namespace temper::ptq
