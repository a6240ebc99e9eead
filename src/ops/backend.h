// What a backend implements: one function per operation of ops.h, with the same contract, called after ops.cpp has checked
// shapes, dtypes, indices and strides. Implementations check nothing again.
#pragma once

#include "ops/ops.h"

namespace temper::ops {

class Backend {
 public:
  virtual ~Backend() = default;

  virtual void matmul(const ExecContext& ctx, const TensorView& a, const TensorView& b, const TensorView& c,
                      MatmulOptions options) const = 0;
  virtual void linear(const ExecContext& ctx, const TensorView& x, std::span<const LinearPart> parts,
                      bool accumulate) const = 0;
  virtual void round_activations(const ExecContext& ctx, const TensorView& x, const quant::InputFormat& rounding,
                                 const TensorView& out) const = 0;
  virtual quant::RangeGradient clip_backward(const ExecContext& ctx, const TensorView& x, const quant::InputFormat& rounding,
                                             const TensorView& grad) const = 0;
  virtual void convert(const ExecContext& ctx, const TensorView& in, const TensorView& out) const = 0;
  virtual void add(const ExecContext& ctx, const TensorView& a, const TensorView& b, const TensorView& out) const = 0;
  virtual void add_row(const ExecContext& ctx, const TensorView& x, const TensorView& row) const = 0;
  virtual void add_column_sums(const ExecContext& ctx, const TensorView& x, const TensorView& sums) const = 0;
  virtual void scale(const ExecContext& ctx, const TensorView& x, float factor) const = 0;
  virtual void scale_columns(const ExecContext& ctx, const TensorView& x, const TensorView& row,
                             const TensorView& out) const = 0;
  virtual void dropout(const ExecContext& ctx, const TensorView& x, const Dropout& draws, const TensorView& out) const = 0;
  virtual void zero(const ExecContext& ctx, const TensorView& x) const = 0;
  virtual void gather_rows(const ExecContext& ctx, const TensorView& in, std::span<const std::int32_t> rows,
                           const TensorView& out) const = 0;
  virtual void scatter_rows(const ExecContext& ctx, const TensorView& in, std::span<const std::int32_t> rows,
                            const TensorView& out) const = 0;
  virtual void embedding(const ExecContext& ctx, const Weight& table, std::span<const std::int32_t> tokens,
                         const TensorView& out) const = 0;
  virtual void embedding_backward(const ExecContext& ctx, const TensorView& dout, std::span<const std::int32_t> tokens,
                                  const TensorView& dtable) const = 0;
  virtual void rmsnorm(const ExecContext& ctx, const TensorView& x, const TensorView& weight, float eps, const TensorView& y,
                       const TensorView& rstd) const = 0;
  virtual void rmsnorm_backward(const ExecContext& ctx, const TensorView& dy, const TensorView& x, const TensorView& weight,
                                const TensorView& rstd, const TensorView& dx, const TensorView* dweight) const = 0;
  virtual void rope(const ExecContext& ctx, const TensorView& x, std::int64_t head_dim,
                    std::span<const std::int32_t> positions, const TensorView& cos, const TensorView& sin,
                    bool inverse) const = 0;
  virtual void glu(const ExecContext& ctx, Gate kind, const TensorView& gate, const TensorView& up,
                   const TensorView& out) const = 0;
  virtual void glu_backward(const ExecContext& ctx, Gate kind, const TensorView& gate, const TensorView& up,
                            const TensorView& dout, const TensorView& dgate, const TensorView& dup) const = 0;
  virtual void attention(const ExecContext& ctx, const TensorView& q, const TensorView& k, const TensorView& v,
                         std::span<const AttentionSpan> spans, const AttentionShape& shape, const TensorView& out,
                         const TensorView* lse) const = 0;
  virtual void attention_backward(const ExecContext& ctx, const TensorView& q, const TensorView& k, const TensorView& v,
                                  std::span<const AttentionSpan> spans, const AttentionShape& shape, const TensorView& out,
                                  const TensorView& lse, const TensorView& dout, const TensorView& dq, const TensorView& dk,
                                  const TensorView& dv) const = 0;
  virtual void cross_entropy(const ExecContext& ctx, const TensorView& logits, std::span<const std::int32_t> targets,
                             float grad_scale, std::span<float> nll, const TensorView* dlogits) const = 0;
  virtual void linear_cross_entropy(const ExecContext& ctx, const TensorView& hidden, const Weight& head,
                                    std::span<const std::int32_t> targets, float grad_scale, std::span<float> nll,
                                    const HeadGradients* gradients, float cap) const = 0;
  virtual void linear_distillation(const ExecContext& ctx, const TensorView& hidden, const Weight& head,
                                   std::span<const std::int32_t> targets, const TeacherRows& teacher,
                                   const DistillationMix& mix, float grad_scale, std::span<float> nll, std::span<float> kl,
                                   const HeadGradients* gradients, float cap) const = 0;
  virtual void softcap(const ExecContext& ctx, const TensorView& x, float cap) const = 0;
  virtual void softcap_backward(const ExecContext& ctx, const TensorView& y, float cap, const TensorView& grad) const = 0;
  virtual void lora_backward(const ExecContext& ctx, const TensorView& x, const TensorView& dy, const LoraGradients& lora,
                             const TensorView* dyb) const = 0;
  virtual void merge_lora(const ExecContext& ctx, const TensorView& base, const LoraView& lora,
                          const TensorView& out) const = 0;
  virtual void merge_and_encode(const ExecContext& ctx, const TensorView& base, const LoraView* lora, DType storage,
                                const quant::Codec& codec, std::span<std::byte> encoded, quant::CodeStats* stats,
                                Parameters parameters, std::span<const float> factors) const = 0;
  virtual void factor_gradients(const ExecContext& ctx, const LearntScales& scales, const TensorView& dw,
                                std::span<float> grads) const = 0;
  virtual void decode(const ExecContext& ctx, const quant::EncodedView& encoded, const TensorView& out) const = 0;
  virtual void adamw(const ExecContext& ctx, const TensorView& param, const TensorView& grad, const OptimizerState& m,
                     const OptimizerState& v, const AdamW& options) const = 0;
  virtual void lion(const ExecContext& ctx, const TensorView& param, const TensorView& grad, const OptimizerState& m,
                    const Lion& options) const = 0;
  virtual void row_dots(const ExecContext& ctx, const TensorView& a, const TensorView& b, std::span<double> out) const = 0;
  virtual double sum_of_squares(const ExecContext& ctx, const TensorView& x) const = 0;

  /// The backend that claims from the workspace what this one's ops claim, and computes nothing.
  virtual const Backend& dry() const = 0;
};

}  // namespace temper::ops
