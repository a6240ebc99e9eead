// A backend that claims the scratch memory of another, and computes nothing.
#pragma once

#include "ops/backend.h"

namespace temper::ops::cpu {

/// Ops that take scratch run through `backend`'s own code, which claims it and returns where the workspace is dry (is_dry in
/// rows.h); the others do nothing. `backend` owns this.
class DryBackend final : public Backend {
 public:
  explicit DryBackend(const Backend& backend) : backend_(backend) {}

  void matmul(const ExecContext& ctx, const TensorView& a, const TensorView& b, const TensorView& c,
              MatmulOptions options) const override {
    backend_.matmul(ctx, a, b, c, options);
  }
  void linear(const ExecContext& ctx, const TensorView& x, std::span<const LinearPart> parts,
              bool accumulate) const override {
    backend_.linear(ctx, x, parts, accumulate);
  }
  void round_activations(const ExecContext&, const TensorView&, const quant::InputFormat&,
                         const TensorView&) const override {}
  quant::RangeGradient clip_backward(const ExecContext& ctx, const TensorView& x, const quant::InputFormat& rounding,
                                     const TensorView& grad) const override {
    return backend_.clip_backward(ctx, x, rounding, grad);
  }
  void convert(const ExecContext&, const TensorView&, const TensorView&) const override {}
  void add(const ExecContext&, const TensorView&, const TensorView&, const TensorView&) const override {}
  void add_row(const ExecContext&, const TensorView&, const TensorView&) const override {}
  void add_column_sums(const ExecContext& ctx, const TensorView& x, const TensorView& sums) const override {
    backend_.add_column_sums(ctx, x, sums);
  }
  void scale(const ExecContext&, const TensorView&, float) const override {}
  void scale_columns(const ExecContext&, const TensorView&, const TensorView&, const TensorView&) const override {}
  void dropout(const ExecContext&, const TensorView&, const Dropout&, const TensorView&) const override {}
  void zero(const ExecContext&, const TensorView&) const override {}
  void gather_rows(const ExecContext&, const TensorView&, std::span<const std::int32_t>, const TensorView&) const override {}
  void scatter_rows(const ExecContext&, const TensorView&, std::span<const std::int32_t>, const TensorView&) const override {
  }
  void embedding(const ExecContext&, const Weight&, std::span<const std::int32_t>, const TensorView&) const override {}
  void embedding_backward(const ExecContext&, const TensorView&, std::span<const std::int32_t>,
                          const TensorView&) const override {}
  void rmsnorm(const ExecContext&, const TensorView&, const TensorView&, float, const TensorView&,
               const TensorView&) const override {}
  /// Of its scratch the gradient of the norm takes as much as sums of columns do.
  void rmsnorm_backward(const ExecContext& ctx, const TensorView& dy, const TensorView&, const TensorView&,
                        const TensorView&, const TensorView&, const TensorView* dweight) const override {
    if (dweight) backend_.add_column_sums(ctx, dy, *dweight);
  }
  void rope(const ExecContext&, const TensorView&, std::int64_t, std::span<const std::int32_t>, const TensorView&,
            const TensorView&, bool) const override {}
  void glu(const ExecContext&, Gate, const TensorView&, const TensorView&, const TensorView&) const override {}
  void glu_backward(const ExecContext&, Gate, const TensorView&, const TensorView&, const TensorView&, const TensorView&,
                    const TensorView&) const override {}
  void attention(const ExecContext& ctx, const TensorView& q, const TensorView& k, const TensorView& v,
                 std::span<const AttentionSpan> spans, const AttentionShape& shape, const TensorView& out,
                 const TensorView* lse) const override {
    backend_.attention(ctx, q, k, v, spans, shape, out, lse);
  }
  void attention_backward(const ExecContext& ctx, const TensorView& q, const TensorView& k, const TensorView& v,
                          std::span<const AttentionSpan> spans, const AttentionShape& shape, const TensorView& out,
                          const TensorView& lse, const TensorView& dout, const TensorView& dq, const TensorView& dk,
                          const TensorView& dv) const override {
    backend_.attention_backward(ctx, q, k, v, spans, shape, out, lse, dout, dq, dk, dv);
  }
  void cross_entropy(const ExecContext&, const TensorView&, std::span<const std::int32_t>, float, std::span<float>,
                     const TensorView*) const override {}
  void linear_cross_entropy(const ExecContext& ctx, const TensorView& hidden, const Weight& head,
                            std::span<const std::int32_t> targets, float grad_scale, std::span<float> nll,
                            const HeadGradients* gradients, float cap) const override {
    backend_.linear_cross_entropy(ctx, hidden, head, targets, grad_scale, nll, gradients, cap);
  }
  void linear_distillation(const ExecContext& ctx, const TensorView& hidden, const Weight& head,
                           std::span<const std::int32_t> targets, const TeacherRows& teacher, const DistillationMix& mix,
                           float grad_scale, std::span<float> nll, std::span<float> kl, const HeadGradients* gradients,
                           float cap) const override {
    backend_.linear_distillation(ctx, hidden, head, targets, teacher, mix, grad_scale, nll, kl, gradients, cap);
  }
  void softcap(const ExecContext&, const TensorView&, float) const override {}
  void softcap_backward(const ExecContext&, const TensorView&, float, const TensorView&) const override {}
  void lora_backward(const ExecContext& ctx, const TensorView& x, const TensorView& dy, const LoraGradients& lora,
                     const TensorView* dyb) const override {
    backend_.lora_backward(ctx, x, dy, lora, dyb);
  }
  void merge_lora(const ExecContext&, const TensorView&, const LoraView&, const TensorView&) const override {}
  void merge_and_encode(const ExecContext& ctx, const TensorView& base, const LoraView* lora, DType storage,
                        const quant::Codec& codec, std::span<std::byte> encoded, quant::CodeStats* stats,
                        Parameters parameters, std::span<const float> factors) const override {
    backend_.merge_and_encode(ctx, base, lora, storage, codec, encoded, stats, parameters, factors);
  }
  void factor_gradients(const ExecContext& ctx, const LearntScales& scales, const TensorView& dw,
                        std::span<float> grads) const override {
    backend_.factor_gradients(ctx, scales, dw, grads);
  }
  void decode(const ExecContext&, const quant::EncodedView&, const TensorView&) const override {}
  void adamw(const ExecContext&, const TensorView&, const TensorView&, const OptimizerState&, const OptimizerState&,
             const AdamW&) const override {}
  void lion(const ExecContext&, const TensorView&, const TensorView&, const OptimizerState&, const Lion&) const override {}
  void row_dots(const ExecContext&, const TensorView&, const TensorView&, std::span<double>) const override {}
  double sum_of_squares(const ExecContext& ctx, const TensorView& x) const override {
    return backend_.sum_of_squares(ctx, x);
  }

  const Backend& dry() const override { return *this; }

 private:
  const Backend& backend_;
};

}  // namespace temper::ops::cpu
