#include "ops/cpu/head_loss.h"

#include <algorithm>
#include <optional>

#include "ops/cpu/rows.h"
#include "ops/cpu/tasks.h"

namespace temper::ops::cpu {
namespace {

/// Rows of logits in memory at a time: as many as 64 MiB hold, at most 256, a number that depends on V alone.
Index chunk_rows(Index vocab) { return std::clamp<Index>((Index{64} << 20) / (vocab * 4), 16, 256); }

/// Logits of some rows at a time: of hidden states through a head, rounded as the head's weight wants it, and a cap.
class Head {
 public:
  Head(const ExecContext& ctx, const Backend& backend, const TensorView& hidden, const Weight& weight, float cap,
       bool rounded_wanted)
      : ctx_(ctx),
        backend_(backend),
        hidden_(hidden),
        weight_(weight),
        cap_(cap),
        rounding_(input_rounding(ctx, weight)),
        integers_(multiplies_integers(ctx, weight)) {
    const Index rows = std::min(chunk_rows(weight.rows()), hidden.rows());
    logits_ = ctx.workspace->allocate(DType::F32, Shape{rows, weight.rows()});
    rounds_ = rounding_ && (!integers_ || rounded_wanted);
    if (rounds_) rounded_ = ctx.workspace->allocate(hidden.dtype, Shape{rows, hidden.cols()});
  }

  /// Of rows [begin, begin + count). Valid until the next call.
  TensorView logits(Index begin, Index count) {
    const TensorView part = matrix(hidden_).slice_rows(begin, begin + count), out = logits_.slice_rows(0, count);
    input_ = rounds_ ? rounded_.slice_rows(0, count) : part;
    if (rounds_) backend_.round_activations(ctx_, part, rounding_, input_);
    if (integers_) {
      const LinearPart product{weight_, out};
      backend_.linear(ctx_, part, {&product, 1}, false);
    } else {
      backend_.matmul(ctx_, input_, weight_.dense, out, {.transpose_b = true});
    }
    if (cap_ > 0) backend_.softcap(ctx_, out, cap_);
    return out;
  }
  const TensorView& input() const { return input_; }  ///< What the last product saw.
  const TensorView& all() const { return logits_; }
  const quant::InputFormat& rounding() const { return rounding_; }

 private:
  const ExecContext& ctx_;
  const Backend& backend_;
  const TensorView& hidden_;
  const Weight& weight_;
  float cap_;
  quant::InputFormat rounding_;
  bool integers_, rounds_ = false;
  TensorView logits_, rounded_, input_;
};

/// Calls loss(begin, logits, dlogits or null) for chunks of rows and takes the gradients of logits through cap and head.
template <typename Loss>
void chunks(const ExecContext& ctx, const Backend& backend, const TensorView& hidden, const Weight& weight,
            const HeadGradients* gradients, float cap, Loss&& loss) {
  const Index rows = hidden.rows(), vocab = weight.rows(), chunk = chunk_rows(vocab);
  Head head(ctx, backend, hidden, weight, cap, gradients && gradients->dhead);
  // Gradients lie over the logits that they are made from, each row from where its logits begin; a cap needs both.
  TensorView all_grads = head.all();
  all_grads.dtype = hidden.dtype;
  all_grads.row_stride = vocab * static_cast<Index>(dtype_size(DType::F32) / dtype_size(hidden.dtype));
  if (cap > 0) all_grads = ctx.workspace->allocate(hidden.dtype, head.all().shape);
  for (Index begin = 0; begin < rows; begin += chunk) {
    const Index count = std::min(chunk, rows - begin);
    const TensorView logits = head.logits(begin, count), grads = all_grads.slice_rows(0, count);
    if (!is_dry(ctx)) loss(begin, logits, gradients ? &grads : nullptr);
    if (!gradients) continue;
    if (cap > 0) backend.softcap_backward(ctx, logits, cap, grads);
    const TensorView dhidden = matrix(gradients->dhidden).slice_rows(begin, begin + count);
    backend.matmul(ctx, grads, weight.dense, dhidden, {});
    if (quant::clips(head.rounding())) {
      const quant::RangeGradient range =
          backend.clip_backward(ctx, matrix(hidden).slice_rows(begin, begin + count), head.rounding(), dhidden);
      if (gradients->range) gradients->range->scale += range.scale, gradients->range->zero += range.zero;
    }
    if (gradients->dhead)
      backend.matmul(ctx, grads, head.input(), *gradients->dhead, {.transpose_a = true, .accumulate = true});
  }
}

}  // namespace

void linear_cross_entropy(const ExecContext& ctx, const Backend& backend, const Kernels& kernels, const TensorView& hidden,
                          const Weight& head, std::span<const std::int32_t> targets, float grad_scale, std::span<float> nll,
                          const HeadGradients* gradients, float cap) {
  const ArenaScope scope(workspace(ctx, "linear_cross_entropy"));
  const std::span<const float> scales = gradients ? gradients->row_scale : std::span<const float>();
  chunks(ctx, backend, hidden, head, gradients, cap, [&](Index first, const TensorView& logits, const TensorView* dlogits) {
    for_rows(logits.rows(), logits.cols(), [&](Index begin, Index end) {
      const auto part = [&](Index from, Index to, float scale) {
        kernels.cross_entropy(rows_of(logits, from), targets.data() + first + from, scale, nll.data() + first + from,
                              dlogits ? rows_of(*dlogits, from) : Rows{}, to - from, logits.cols());
      };
      if (scales.empty()) return part(begin, end, grad_scale);
      for (Index r = begin; r < end; ++r) part(r, r + 1, grad_scale * scales[static_cast<std::size_t>(first + r)]);
    });
  });
}

void linear_distillation(const ExecContext& ctx, const Backend& backend, const Kernels& kernels, const TensorView& hidden,
                         const Weight& head, std::span<const std::int32_t> targets, const TeacherRows& teacher,
                         const DistillationMix& mix, float grad_scale, std::span<float> nll, std::span<float> kl,
                         const HeadGradients* gradients, float cap) {
  if (mix.divergence == 0)
    return linear_cross_entropy(ctx, backend, kernels, hidden, head, targets, grad_scale * mix.cross_entropy, nll, gradients,
                                cap);
  const ArenaScope scope(workspace(ctx, "linear_distillation"));
  const DistillFactors factors{mix.cross_entropy, mix.divergence, mix.temperature, grad_scale};
  std::optional<Head> other;
  if (teacher.top_k == 0) other.emplace(ctx, backend, teacher.hidden, teacher.head, teacher.cap, false);
  chunks(ctx, backend, hidden, head, gradients, cap, [&](Index first, const TensorView& logits, const TensorView* dlogits) {
    const TensorView drawn = other ? other->logits(first, logits.rows()) : TensorView{};
    for_rows(logits.rows(), logits.cols(), [&](Index begin, Index end) {
      const Index at = first + begin;
      const Rows grads = dlogits ? rows_of(*dlogits, begin) : Rows{};
      if (other) {
        kernels.distill(rows_of(logits, begin), rows_of(drawn, begin), targets.data() + at, factors, nll.data() + at,
                        kl.data() + at, grads, end - begin, logits.cols());
      } else {
        const TopRows top{teacher.ids.data() + at * teacher.top_k, teacher.log_probs.data() + at * teacher.top_k,
                          teacher.log_rest.data() + at, teacher.top_k};
        kernels.distill_top(rows_of(logits, begin), top, targets.data() + at, factors, nll.data() + at, kl.data() + at,
                            grads, end - begin, logits.cols());
      }
    });
  });
}

}  // namespace temper::ops::cpu
