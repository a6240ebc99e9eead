#include <algorithm>

#include "ops/backend.h"
#include "ops/checker.h"
#include "ops/ops.h"

namespace temper::ops {

void cross_entropy(const ExecContext& ctx, const TensorView& logits, std::span<const std::int32_t> targets, float grad_scale,
                   std::span<float> nll, const TensorView* dlogits) {
  const Checker check("cross_entropy", ctx, {{"logits", &logits}});
  check.f32({&logits});
  check.require(is_empty(logits) || (logits.rows() == length(targets) && nll.size() == targets.size()),
                "one target and nll per row");
  check.indices(targets, logits.cols(), "target");
  if (dlogits) {
    check.activation(*dlogits);
    check.same_shape(logits, *dlogits);
  }
  if (!is_empty(logits)) ctx.backend->cross_entropy(ctx, logits, targets, grad_scale, nll, dlogits);
}

namespace {

/// What both losses ask of the student's side. Returns the floating-point operations of one product with the head.
double check_head_loss(const Checker& check, const ExecContext& ctx, const TensorView& hidden, const Weight& head,
                       std::span<const std::int32_t> targets, std::size_t losses, const HeadGradients* gradients) {
  check.activation(hidden);
  check.require(head.dense || (multiplies_integers(ctx, head) && !gradients), "a dense head");
  check.dtype(!head.dense || head.dense.dtype == hidden.dtype, "the same for hidden and head");
  check.require(head.cols() == hidden.cols(), "hidden [n, H] and head [V, H]");
  check.require(is_empty(hidden) || (hidden.rows() == length(targets) && losses == targets.size()),
                "one target and loss per row");
  check.indices(targets, head.rows(), "target");
  if (gradients) {
    check.f32({&gradients->dhidden});
    check.same_shape(gradients->dhidden, hidden);
    check.require(gradients->row_scale.empty() || gradients->row_scale.size() == targets.size(), "one row_scale per row");
    if (gradients->dhead) {
      check.f32({gradients->dhead});
      check.same_shape(*gradients->dhead, head.dense);
    }
  }
  return 2.0 * static_cast<double>(hidden.shape.numel()) * static_cast<double>(head.rows());
}

}  // namespace

void linear_cross_entropy(const ExecContext& ctx, const TensorView& hidden, const Weight& head,
                          std::span<const std::int32_t> targets, float grad_scale, std::span<float> nll,
                          const HeadGradients* gradients, float cap) {
  const Checker check("linear_cross_entropy", ctx, {{"hidden", &hidden}, {"head", head.dense ? &head.dense : &hidden}});
  check_encoded("linear_cross_entropy", head.encoded);
  const double product = check_head_loss(check, ctx, hidden, head, targets, nll.size(), gradients);
  check.work(product * (gradients ? gradients->dhead ? 3 : 2 : 1));
  if (!is_empty(hidden)) ctx.backend->linear_cross_entropy(ctx, hidden, head, targets, grad_scale, nll, gradients, cap);
}

void linear_distillation(const ExecContext& ctx, const TensorView& hidden, const Weight& head,
                         std::span<const std::int32_t> targets, const TeacherRows& teacher, const DistillationMix& mix,
                         float grad_scale, std::span<float> nll, std::span<float> kl, const HeadGradients* gradients,
                         float cap) {
  const Checker check("linear_distillation", ctx, {{"hidden", &hidden}, {"head", head.dense ? &head.dense : &hidden}});
  check_encoded("linear_distillation", head.encoded);
  double product = check_head_loss(check, ctx, hidden, head, targets, nll.size(), gradients);
  product *= gradients ? gradients->dhead ? 3 : 2 : 1;
  check.require(nll.size() == kl.size(), "one divergence per row");
  check.require(!gradients || gradients->row_scale.empty(), "no row_scale");
  check.require(mix.temperature > 0, "a temperature above 0");
  const std::size_t n = targets.size(), k = static_cast<std::size_t>(teacher.top_k);
  if (mix.divergence == 0) {
    std::ranges::fill(kl, 0.0f);
  } else if (teacher.top_k > 0) {
    check.require(teacher.top_k <= kMaxTopK, "at most kMaxTopK ids a row");
    check.require(teacher.ids.size() == n * k && teacher.log_probs.size() == n * k && teacher.log_rest.size() == n,
                  "k ids and probabilities a row");
    check.indices(teacher.ids, head.rows(), "teacher's id");
  } else {
    check.dtype(teacher.head.dense && teacher.head.dense.dtype == hidden.dtype && teacher.hidden.dtype == hidden.dtype,
                "a dense teacher's head of the same dtype");
    check.require(teacher.hidden.rows() == hidden.rows() && teacher.head.cols() == teacher.hidden.cols() &&
                      teacher.head.rows() == head.rows(),
                  "teacher's hidden [n, H'] and head [V, H']");
    product += 2.0 * static_cast<double>(teacher.hidden.shape.numel()) * static_cast<double>(head.rows());
  }
  check.work(product);
  if (!is_empty(hidden))
    ctx.backend->linear_distillation(ctx, hidden, head, targets, teacher, mix, grad_scale, nll, kl, gradients, cap);
}

void softcap(const ExecContext& ctx, const TensorView& x, float cap) {
  const Checker check("softcap", ctx, {{"x", &x}});
  check.f32({&x});
  check.require(cap > 0, "a cap above 0");
  if (!is_empty(x)) ctx.backend->softcap(ctx, x, cap);
}

void softcap_backward(const ExecContext& ctx, const TensorView& y, float cap, const TensorView& grad) {
  const Checker check("softcap_backward", ctx, {{"y", &y}, {"grad", &grad}});
  check.f32({&y});
  check.activation(grad);
  check.same_shape(y, grad);
  check.require(cap > 0, "a cap above 0");
  if (!is_empty(y)) ctx.backend->softcap_backward(ctx, y, cap, grad);
}

}  // namespace temper::ops
