// What quantization itself has of parameters that a run calibrates or trains: static ranges of activations (learned
// clipping: LSQ, PACT) and factors of the weights' scales (LSQ).
#pragma once

#include <filesystem>
#include <vector>

#include "eval/range_calibration.h"
#include "eval/run_info.h"
#include "model/backward_taps.h"
#include "model/static_ranges.h"
#include "model/trainables.h"
#include "recipe/recipe.h"
#include "text/dataset.h"
#include "train/qat.h"
#include "train/state_tensors.h"

namespace temper::train {

/// Factors of scales begin at 1 and multiply the scales that each step fits; those of ranges begin at 1 and multiply the
/// ends that calibration found: [one] of formats whose ends are as large, [low, high] of asymmetric ones. Gradients are
/// straight-through.
class LearntQuantization final : public model::BackwardTaps {
 public:
  /// `weights` (null without a scheme: then there is nothing to learn) and `adapters` (may be null) must outlive this.
  /// `scales`: the dtype in which a file stores scales. Throws BadRecipe where recipe.quant asks for what the scheme lacks.
  LearntQuantization(const recipe::Recipe& recipe, model::EncodedWeights* weights, const model::Adapters* adapters,
                     DType scales);

  /// Arrays to train: "scales" and "ranges", as the recipe asks.
  std::vector<model::ParameterArray> arrays() const;
  /// Tensors whose codes have learnt scales, by index in the table: a run keeps them.
  const std::vector<std::size_t>& scaled() const { return scaled_; }
  bool has_ranges() const { return !sites_.empty(); }

  /// Finds the ends of all ranges, from the first recipe.quant.range_tokens tokens of `samples`, as `model` sees them.
  void calibrate(const ExecContext& ctx, model::Transformer& model, const std::vector<text::Sample>& samples);
  /// Gives the weights the ranges that go with the factors as they are now: once per optimizer step.
  void prepare();
  /// What a checkpoint keeps beside the arrays.
  std::vector<StateTensor> state() const;
  /// Writes the ranges into a run's folder, and says so in its info.
  void save(const std::filesystem::path& run, eval::RunInfo& info) const;

  bool wants_weight_gradient(int layer, model::Linear linear) const override;
  void weight_gradient(const ExecContext& ctx, int layer, model::Linear linear, std::int64_t first,
                       const TensorView& dw) override;
  void input_range(int layer, model::Linear linear, const quant::RangeGradient& gradient) override;
  void output_range(int layer, model::Linear linear, const quant::RangeGradient& gradient) override;
  void head_range(const quant::RangeGradient& gradient) override;

 private:
  void learn_scales(float lr_factor);
  void learn_ranges(float lr_factor);
  eval::RangeEnds ends(std::size_t site) const;  ///< Times their factors.
  void add(std::size_t site, const quant::RangeGradient& gradient);

  const recipe::Recipe& recipe_;
  model::EncodedWeights* weights_;
  const model::Adapters* adapters_;
  DType scales_dtype_;
  std::vector<std::size_t> scaled_, segment_of_;  // segment_of_: by table index
  model::ParameterArray scales_, ranges_;
  std::vector<model::RangeSite> sites_;
  std::vector<std::size_t> input_site_, output_site_;  // by table index
  Tensor calibrated_;                                  // F32 [sites, 2]: low, high
};

}  // namespace temper::train
