#include "ptq/gptq_method.h"

#include "ptq/clip.h"
#include "ptq/fold_scales.h"
#include "ptq/gptq.h"
#include "ptq/input_moments.h"

namespace temper::ptq {
namespace {

class Gptq final : public Method {
 public:
  explicit Gptq(const recipe::QuantOptions& options) : damping_(options.gptq_damping), act_order_(options.gptq_act_order) {}

  bool sequential() const override { return true; }
  model::Taps* begin_layer(int) override {
    moments_.clear();
    return &moments_;
  }
  std::vector<std::byte> encode(const ExecContext& ctx, const Matrix& matrix) override {
    if (matrix.info.role != quant::Role::Linear) return encode_rtn(ctx, matrix);
    GptqOptions options;
    options.damping = damping_;
    options.act_order = act_order_;
    if (can_clip(matrix.codec)) options.fit = fit_mse;
    return gptq(ctx, to_f32(ctx, matrix.values), moments_.hessian(input_of(matrix.info)), matrix.codec, options).encoded;
  }

 private:
  double damping_;
  bool act_order_;
  InputMoments moments_;
};

class Scaled final : public Method {
 public:
  Scaled(const recipe::Recipe& recipe, std::unique_ptr<Method> rounding) : recipe_(recipe), rounding_(std::move(rounding)) {}

  void prepare(const ExecContext& ctx, model::EncodedWeights& weights, const Calibration* calibration) override {
    if (!calibration) throw BadRecipe("quant.transform: needs calibration data (--calibration)");
    model::BaseWeights& base = weights.base();
    FoldedModel folded(base.arch(),
                       [&](std::size_t index, const TensorView& out) { ops::convert(ctx, base.tensor(index), out); });
    ScaleOptions options;
    options.alpha = recipe_.quant.smoothquant_alpha;
    options.memory_limit = static_cast<std::size_t>(recipe_.calibration.memory) << 20;
    if (recipe_.quant.transform == recipe::QuantTransform::Awq)
      options.codec = [&](const model::TensorInfo& info) { return weights.scheme().codec_for(info.place); };
    model::Transformer measured(base.arch(), weights, nullptr, /*merged=*/true);
    scale_inputs(ctx, folded, measured, *calibration, options);
    for (std::size_t i = 0; i < folded.table().size(); ++i) {
      const quant::Role role = folded.table()[i].role;
      if (role == quant::Role::Linear || (role == quant::Role::Norm && i != folded.table().final_norm()))
        base.replace(ctx, i, folded.stored(i, base.storage()));
    }
    rounding_->prepare(ctx, weights, calibration);
  }
  bool sequential() const override { return rounding_->sequential(); }
  model::Taps* begin_layer(int layer) override { return rounding_->begin_layer(layer); }
  std::vector<std::byte> encode(const ExecContext& ctx, const Matrix& matrix) override {
    return rounding_->encode(ctx, matrix);
  }

 private:
  const recipe::Recipe& recipe_;
  std::unique_ptr<Method> rounding_;
};

}  // namespace

std::unique_ptr<Method> make_gptq(const recipe::QuantOptions& options) { return std::make_unique<Gptq>(options); }

std::unique_ptr<Method> make_scaled(const recipe::Recipe& recipe, std::unique_ptr<Method> rounding) {
  return std::make_unique<Scaled>(recipe, std::move(rounding));
}

}  // namespace temper::ptq
