#include "model/block.h"

#include <algorithm>

#include "base/profile.h"

namespace temper::model {
namespace {

std::size_t at(Linear l) { return static_cast<std::size_t>(l); }

ops::AttentionShape attention_shape(const BlockCall& c) {
  const ArchSpec& a = c.arch;
  return {
      a.num_heads,        a.num_kv_heads, a.head_dim, a.attention_scale, a.layer(c.layer).windowed ? a.sliding_window : 0,
      a.attention_softcap};
}

/// The bias of a projection, or a null view.
TensorView bias_of(const BlockCall& c, Linear l) {
  switch (l) {
    case Linear::Q: return c.weights[BlockVector::QBias];
    case Linear::K: return c.weights[BlockVector::KBias];
    case Linear::V: return c.weights[BlockVector::VBias];
    default: return {};
  }
}

/// Each head's values as a row of its own: [N, heads · d] as [N · heads, d].
TensorView by_head(const TensorView& x, std::int64_t head_dim) {
  return TensorView(x.data, x.dtype, {x.rows() * (x.cols() / head_dim), head_dim});
}

void tap(const BlockCall& c, LinearInput which, const TensorView& x) {
  if (c.taps) c.taps->input(c.ctx, c.layer, which, x);
}

/// x (T) as the products of some projections saw it in the forward pass: x itself, or a copy of it, rounded again wherever
/// the next projection's rounding differs from the last one's.
class ProductInput {
 public:
  ProductInput(const BlockCall& call, const TensorView& x) : call_(call), x_(x) {}
  const TensorView& before_rounding() const { return x_; }
  const TensorView& of(Linear l) {
    const quant::InputFormat rounding = ops::input_rounding(call_.ctx, call_.weights[l]);
    if (!rounding) return x_;
    if (!copy_) copy_ = call_.ctx.workspace->allocate(x_.dtype, x_.shape);
    if (rounding_ != rounding) ops::round_activations(call_.ctx, x_, rounding, copy_);
    rounding_ = rounding;
    return copy_;
  }

 private:
  const BlockCall& call_;
  TensorView x_, copy_;
  quant::InputFormat rounding_;
};

/// x (T or F32) with the dropout of a projection's adapter; `to` may be x.
void drop(const BlockCall& c, Linear l, const TensorView& x, const TensorView& to) {
  ops::Dropout draws = *c.dropout;
  draws.stream += static_cast<std::uint64_t>(c.layer) * kLinears.size() + at(l);
  ops::dropout(c.ctx, x, draws, to);
}

/// The input of a projection's adapter: x as the product saw it, and dropout.
TensorView adapter_input(const BlockCall& c, Linear l, const TensorView& x) {
  if (!c.dropout) return x;
  const TensorView dropped = c.ctx.workspace->allocate(x.dtype, x.shape);
  drop(c, l, x, dropped);
  return dropped;
}

/// y (= or, with `accumulate`, +=) gain ∘ (x · Wᵀ + s · (x · Aᵀ) · Bᵀ) + bias, not rounded to the weight's output format;
/// gain and the low-rank part where an adapter is applied unmerged. x T; y T or F32.
void product_forward(const BlockCall& c, Linear l, const TensorView& x, const TensorView& y, bool accumulate) {
  const Adapters::Entry* lora = c.merged ? nullptr : c.lora[at(l)];
  const TensorView bias = bias_of(c, l);
  ArenaScope scope(*c.ctx.workspace);
  // Low-rank part and bias are added in f32, before the one rounding to T.
  const bool gained = lora && lora->gain, adds_later = gained && accumulate;
  const bool through_f32 = ((lora || bias) && y.dtype != DType::F32) || adds_later;
  const TensorView sum = through_f32 ? c.ctx.workspace->allocate(DType::F32, y.shape) : y;
  ops::linear(c.ctx, x, c.weights[l], sum, accumulate && !adds_later);
  if (lora) {
    const ProfileSection section("low-rank");
    const TensorView low = c.ctx.workspace->allocate(x.dtype, {x.rows(), lora->a.rows()});
    ops::matmul(c.ctx, adapter_input(c, l, ProductInput(c, x).of(l)), lora->operand_a, low,
                {.transpose_b = true, .alpha = lora->scale});
    ops::matmul(c.ctx, low, lora->operand_b, sum, {.transpose_b = true, .accumulate = true});
  }
  if (gained) ops::scale_columns(c.ctx, sum, lora->gain, sum);
  if (bias) ops::add_row(c.ctx, sum, bias);
  if (adds_later)
    ops::add(c.ctx, y, sum, y);
  else if (through_f32)
    ops::convert(c.ctx, sum, y);
}

bool shows_output(const BlockCall& c, Linear l) { return c.taps && c.taps->wants_output(c.layer, l); }

/// The same, shown to the taps, and rounded to the weight's output format where it has one.
void linear_forward(const BlockCall& c, Linear l, const TensorView& x, const TensorView& y, bool accumulate = false) {
  const quant::InputFormat rounding = ops::output_rounding(c.weights[l]);
  if (!rounding && !shows_output(c, l)) return product_forward(c, l, x, y, accumulate);
  ArenaScope scope(*c.ctx.workspace);
  const TensorView product = c.ctx.workspace->allocate(x.dtype, y.shape);
  product_forward(c, l, x, product, false);
  if (shows_output(c, l)) c.taps->output(c.ctx, c.layer, l, product);
  ops::round_activations(c.ctx, product, rounding, product);
  if (accumulate)
    ops::add(c.ctx, y, product, y);
  else
    ops::convert(c.ctx, product, y);
}

/// Projections of the same x: one op where there is no bias, no adapter is applied unmerged and no product is rounded.
void linears_forward(const BlockCall& c, std::span<const Linear> linears, const TensorView& x,
                     std::span<const TensorView> y) {
  const bool plain = std::ranges::all_of(linears, [&](Linear l) {
    return (c.merged || c.lora[at(l)] == nullptr) && !bias_of(c, l) && !ops::output_rounding(c.weights[l]) &&
           !shows_output(c, l);
  });
  std::array<ops::LinearPart, 3> parts;
  for (std::size_t i = 0; i < linears.size(); ++i) {
    parts[i] = {c.weights[linears[i]], y[i]};
    if (!plain) linear_forward(c, linears[i], x, y[i]);
  }
  if (plain) ops::linear(c.ctx, x, std::span(parts).first(linears.size()));
}

/// dy as the product's own gradient: through the mask of its output's range.
TensorView before_output_rounding(const BlockCall& c, Linear l, const TensorView& x, const TensorView& dy) {
  const quant::InputFormat rounding = ops::output_rounding(c.weights[l]);
  if (!rounding) return dy;
  const TensorView out = c.ctx.workspace->allocate(dy.dtype, dy.shape);
  ops::convert(c.ctx, dy, out);
  ArenaScope scope(*c.ctx.workspace);
  const TensorView product = c.ctx.workspace->allocate(x.dtype, dy.shape);
  product_forward(c, l, x, product, false);  // not kept: only these formats look at it again
  const quant::RangeGradient range = ops::clip_backward(c.ctx, product, rounding, out);
  if (c.backward_taps) c.backward_taps->output_range(c.layer, l, range);
  return out;
}

/// dW = dyᵀ · x, a tile of rows at a time, for whoever asked for it.
void hand_out_weight_gradient(const BlockCall& c, Linear l, const TensorView& x, const TensorView& dy) {
  constexpr std::int64_t kTile = 256;
  ArenaScope scope(*c.ctx.workspace);
  const TensorView all = c.ctx.workspace->allocate(DType::F32, {std::min(kTile, dy.cols()), x.cols()});
  for (std::int64_t first = 0; first < dy.cols(); first += kTile) {
    const std::int64_t end = std::min(first + kTile, dy.cols());
    const TensorView dw = all.slice_rows(0, end - first);
    ops::matmul(c.ctx, dy.slice_cols(first, end), x, dw, {.transpose_a = true});
    c.backward_taps->weight_gradient(c.ctx, c.layer, l, first, dw);
  }
}

/// dx F32 += dyb · A, through the dropout where there is one.
void low_rank_input_gradient(const BlockCall& c, Linear l, const TensorView& dyb, const TensorView& a,
                             const TensorView& dx) {
  if (!c.dropout) return ops::matmul(c.ctx, dyb, a, dx, {.accumulate = true});
  ArenaScope scope(*c.ctx.workspace);
  const TensorView low = c.ctx.workspace->allocate(DType::F32, dx.shape);
  ops::matmul(c.ctx, dyb, a, low);
  drop(c, l, low, low);
  ops::add(c.ctx, dx, low, dx);
}

/// dy as the gradient of x · (W + s·B·A)ᵀ: times the gain, where there is one.
TensorView before_gain(const BlockCall& c, const Adapters::Entry* lora, const TensorView& dy) {
  if (!lora || !lora->gain) return dy;
  const TensorView out = c.ctx.workspace->allocate(dy.dtype, dy.shape);
  ops::scale_columns(c.ctx, dy, lora->gain, out);
  return out;
}

/// dx (= or +=) dy · W, and the gradients that are wanted: dB += s·dyᵀ(x·Aᵀ), dA += s·(dy·B)ᵀx, dW += dyᵀx, dbias += Σ dy,
/// all with x as the product saw it; dx is that of x before its rounding, too (straight-through, with the mask of a static
/// range). x, dy T; dx T or F32. With merged weights the straight-through estimator takes the gradient of W as that of the
/// merged matrix, so dx has no part of A's.
void linear_backward(const BlockCall& c, Linear l, ProductInput& input, const TensorView& dy_rounded, const TensorView& dx,
                     bool accumulate, const TensorView& dw, const TensorView& dbias = {}) {
  const ExecContext& ctx = c.ctx;
  const Adapters::Entry* lora = c.lora[at(l)];
  const bool hands_out = c.backward_taps && c.backward_taps->wants_weight_gradient(c.layer, l);
  const TensorView x = lora || dw || hands_out ? input.of(l) : TensorView{};
  ArenaScope scope(*ctx.workspace);
  const TensorView dy = before_output_rounding(c, l, input.before_rounding(), dy_rounded);
  const quant::InputFormat rounding = ops::input_rounding(ctx, c.weights[l]);
  const bool low_rank_dx = lora && !c.merged, clipped = quant::clips(rounding);
  const bool through_f32 = (low_rank_dx && dx.dtype != DType::F32) || clipped;
  const TensorView sum = through_f32 ? ctx.workspace->allocate(DType::F32, dx.shape) : dx;
  const TensorView dsum = before_gain(c, lora, dy);
  // A merged weight contains the gain.
  ops::matmul(ctx, c.merged ? dy : dsum, c.weights[l].dense, sum, {.accumulate = accumulate && !clipped});
  if (dw) ops::matmul(ctx, dy, x, dw, {.transpose_a = true, .accumulate = true});
  if (hands_out) hand_out_weight_gradient(c, l, x, dy);
  if (dbias) ops::add_column_sums(ctx, dy, dbias);
  if (lora) {
    const ProfileSection section("low-rank");
    const TensorView dyb = low_rank_dx ? ctx.workspace->allocate(x.dtype, {x.rows(), lora->a.rows()}) : TensorView{};
    ops::lora_backward(ctx, adapter_input(c, l, x), dsum,
                       {lora->operand_a, lora->operand_b, lora->grad_a, lora->grad_b, lora->scale},
                       low_rank_dx ? &dyb : nullptr);
    if (low_rank_dx) low_rank_input_gradient(c, l, dyb, lora->operand_a, sum);
    c.adapters->add_magnitude_gradient(ctx, *lora, x, dy);
  }
  if (clipped) {
    const quant::RangeGradient range = ops::clip_backward(ctx, input.before_rounding(), rounding, sum);
    if (c.backward_taps) c.backward_taps->input_range(c.layer, l, range);
  }
  if (clipped && accumulate)
    ops::add(ctx, dx, sum, dx);
  else if (through_f32)
    ops::convert(ctx, sum, dx);
}

}  // namespace

BlockActivations allocate_activations(Arena& arena, const ArchSpec& arch, DType compute, std::int64_t n) {
  BlockActivations a = allocate_products(arena, arch, compute, n);
  allocate_derived(arena, arch, compute, n, a);
  return a;
}

void allocate_derived(Arena& arena, const ArchSpec& arch, DType compute, std::int64_t n, BlockActivations& a) {
  for (TensorView* view : {&a.rstd1, &a.rstd2}) *view = arena.allocate(DType::F32, {n});
  for (TensorView* view : {&a.n1, &a.n2}) *view = arena.allocate(compute, {n, arch.hidden_size});
  a.act = arena.allocate(compute, {n, arch.intermediate_size});
}

BlockActivations allocate_products(Arena& arena, const ArchSpec& arch, DType compute, std::int64_t n) {
  BlockActivations a;
  if (arch.architecture->qk_norm) {
    a.q_raw = arena.allocate(DType::F32, {n, arch.q_size()});
    a.k_raw = arena.allocate(DType::F32, {n, arch.kv_size()});
    a.rstd_q = arena.allocate(DType::F32, {n * arch.num_heads});
    a.rstd_k = arena.allocate(DType::F32, {n * arch.num_kv_heads});
  }
  a.q = arena.allocate(compute, {n, arch.q_size()});
  a.k = a.keys = arena.allocate(compute, {n, arch.kv_size()});
  a.v = a.values = arena.allocate(compute, {n, arch.kv_size()});
  a.attended = arena.allocate(compute, {n, arch.q_size()});
  a.lse = arena.allocate(DType::F32, {n, arch.num_heads});
  a.x_mid = arena.allocate(DType::F32, {n, arch.hidden_size});
  a.gate = arena.allocate(compute, {n, arch.intermediate_size});
  a.up = arena.allocate(compute, {n, arch.intermediate_size});
  if (arch.architecture->post_norms) {
    for (TensorView* view : {&a.o, &a.down}) *view = arena.allocate(DType::F32, {n, arch.hidden_size});
    for (TensorView* view : {&a.rstd_o, &a.rstd_down}) *view = arena.allocate(DType::F32, {n});
  }
  return a;
}

namespace {

void rope_forward(const BlockCall& c, const TensorView& x, bool inverse) {
  if (c.rope) ops::rope(c.ctx, x, c.arch.head_dim, c.batch.positions, c.rope->cos, c.rope->sin, inverse);
}

/// q, k and v of n1: projected, normed head by head where the architecture does so, and turned by their positions.
void project(const BlockCall& c, BlockActivations& a) {
  const ExecContext& ctx = c.ctx;
  const bool normed = c.arch.architecture->qk_norm;
  linears_forward(c, std::array{Linear::Q, Linear::K, Linear::V}, a.n1,
                  std::array{normed ? a.q_raw : a.q, normed ? a.k_raw : a.k, a.v});
  if (normed) {
    const std::int64_t d = c.arch.head_dim;
    const float eps = c.arch.rms_norm_eps;
    ops::rmsnorm(ctx, by_head(a.q_raw, d), c.weights[BlockVector::QNorm], eps, by_head(a.q, d), a.rstd_q);
    ops::rmsnorm(ctx, by_head(a.k_raw, d), c.weights[BlockVector::KNorm], eps, by_head(a.k, d), a.rstd_k);
  }
  rope_forward(c, a.q, false);
  rope_forward(c, a.k, false);
}

/// x_out F32 = x + linear(input), through a norm where `post` is one: then its own input goes to `raw`.
void add_to_residual(const BlockCall& c, Linear l, const TensorView& input, BlockVector post, const TensorView& raw,
                     const TensorView& rstd, const TensorView& x, const TensorView& x_out) {
  if (x_out.data != x.data) ops::convert(c.ctx, x, x_out);
  if (!raw) return linear_forward(c, l, input, x_out, /*accumulate=*/true);
  ArenaScope scope(*c.ctx.workspace);
  const TensorView normed = c.ctx.workspace->allocate(DType::F32, raw.shape);
  linear_forward(c, l, input, raw);
  ops::rmsnorm(c.ctx, raw, c.weights[post], c.arch.rms_norm_eps, normed, rstd);
  ops::add(c.ctx, x_out, normed, x_out);
}

void norm_of_attention(const BlockCall& c, BlockActivations& a) {
  ops::rmsnorm(c.ctx, a.x_in, c.weights[BlockVector::AttentionNorm], c.arch.rms_norm_eps, a.n1, a.rstd1);
}

void norm_of_mlp(const BlockCall& c, BlockActivations& a) {
  ops::rmsnorm(c.ctx, a.x_mid, c.weights[BlockVector::MlpNorm], c.arch.rms_norm_eps, a.n2, a.rstd2);
}

void activate(const BlockCall& c, BlockActivations& a) { ops::glu(c.ctx, c.arch.architecture->gate, a.gate, a.up, a.act); }

/// Up to the MLP's activation.
void forward_to_act(const BlockCall& c, BlockActivations& a) {
  const ExecContext& ctx = c.ctx;
  norm_of_attention(c, a);
  tap(c, LinearInput::Attention, a.n1);
  project(c, a);
  if (!a.cache_rows.empty()) {
    ops::scatter_rows(ctx, a.k, a.cache_rows, a.keys);
    ops::scatter_rows(ctx, a.v, a.cache_rows, a.values);
  }
  ops::attention(ctx, a.q, a.keys, a.values, c.batch.spans, attention_shape(c), a.attended, &a.lse);
  tap(c, LinearInput::Output, a.attended);
  add_to_residual(c, Linear::O, a.attended, BlockVector::PostAttentionNorm, a.o, a.rstd_o, a.x_in, a.x_mid);
  norm_of_mlp(c, a);
  tap(c, LinearInput::Mlp, a.n2);
  linears_forward(c, std::array{Linear::Gate, Linear::Up}, a.n2, std::array{a.gate, a.up});
  activate(c, a);
  tap(c, LinearInput::Down, a.act);
}

}  // namespace

void block_recompute(const BlockCall& c, BlockActivations& a) {
  forward_to_act(c, a);
  if (!a.down) return;
  ArenaScope scope(*c.ctx.workspace);
  add_to_residual(c, Linear::Down, a.act, BlockVector::PostMlpNorm, a.down, a.rstd_down, a.x_mid,
                  c.ctx.workspace->allocate(DType::F32, a.x_mid.shape));
}

void block_rederive(const BlockCall& c, BlockActivations& a) {
  norm_of_attention(c, a);
  norm_of_mlp(c, a);
  activate(c, a);
}

void block_forward(const BlockCall& c, BlockActivations& a, const TensorView& x_out) {
  forward_to_act(c, a);
  add_to_residual(c, Linear::Down, a.act, BlockVector::PostMlpNorm, a.down, a.rstd_down, a.x_mid, x_out);
}

namespace {

const TensorView* wanted_or_null(const TensorView& view) { return view ? &view : nullptr; }

/// dy (T) = the gradient of what add_to_residual's linear gave, from that of the residual stream, dx F32.
void residual_backward(const BlockCall& c, const TensorView& dx, BlockVector post, const TensorView& raw,
                       const TensorView& rstd, const BlockBaseGradients& wanted, const TensorView& dy) {
  if (!raw) return ops::convert(c.ctx, dx, dy);
  ArenaScope scope(*c.ctx.workspace);
  const TensorView draw = c.ctx.workspace->allocate(DType::F32, raw.shape);
  ops::zero(c.ctx, draw);
  ops::rmsnorm_backward(c.ctx, dx, raw, c.weights[post], rstd, draw,
                        wanted_or_null(wanted.vectors[static_cast<std::size_t>(post)]));
  ops::convert(c.ctx, draw, dy);
}

/// dq (T), in place: turned back, and through the norm of each head.
void unturn(const BlockCall& c, const TensorView& dq, BlockVector norm, const TensorView& raw, const TensorView& rstd,
            const BlockBaseGradients& wanted) {
  rope_forward(c, dq, true);
  if (!raw) return;
  const std::int64_t d = c.arch.head_dim;
  ArenaScope scope(*c.ctx.workspace);
  const TensorView wide = c.ctx.workspace->allocate(DType::F32, dq.shape);
  const TensorView draw = c.ctx.workspace->allocate(DType::F32, dq.shape);
  ops::convert(c.ctx, dq, wide);
  ops::zero(c.ctx, draw);
  ops::rmsnorm_backward(c.ctx, by_head(wide, d), by_head(raw, d), c.weights[norm], rstd, by_head(draw, d),
                        wanted_or_null(wanted.vectors[static_cast<std::size_t>(norm)]));
  ops::convert(c.ctx, draw, dq);
}

/// MLP: x_out = x_mid + norm(down(glu(gate(n2), up(n2)))). dy T and dn F32 [N, H] are scratch.
void mlp_backward(const BlockCall& c, const BlockActivations& a, const TensorView& dx, const BlockBaseGradients& wanted,
                  const TensorView& dy, const TensorView& dn) {
  const auto dw = [&](Linear l) -> const TensorView& { return wanted.linear[at(l)]; };
  ArenaScope scope(*c.ctx.workspace);
  const TensorView dact = c.ctx.workspace->allocate(c.ctx.compute, a.act.shape);
  const TensorView &dgate = a.gate, &dup = a.up;  // glu_backward is the last to read them
  ProductInput act(c, a.act), n2(c, a.n2);
  residual_backward(c, dx, BlockVector::PostMlpNorm, a.down, a.rstd_down, wanted, dy);
  linear_backward(c, Linear::Down, act, dy, dact, false, dw(Linear::Down));
  ops::glu_backward(c.ctx, c.arch.architecture->gate, a.gate, a.up, dact, dgate, dup);
  linear_backward(c, Linear::Up, n2, dup, dn, false, dw(Linear::Up));
  linear_backward(c, Linear::Gate, n2, dgate, dn, true, dw(Linear::Gate));
  ops::rmsnorm_backward(c.ctx, dn, a.x_mid, c.weights[BlockVector::MlpNorm], a.rstd2, dx,
                        wanted_or_null(wanted.vectors[static_cast<std::size_t>(BlockVector::MlpNorm)]));
}

/// Attention: x_mid = x_in + norm(o(attention(rope(norm(q(n1))), rope(norm(k(n1))), v(n1)))). The same scratch.
void attention_part_backward(const BlockCall& c, const BlockActivations& a, const TensorView& dx,
                             const BlockBaseGradients& wanted, const TensorView& dy, const TensorView& dn) {
  const ExecContext& ctx = c.ctx;
  const auto dw = [&](Linear l) -> const TensorView& { return wanted.linear[at(l)]; };
  const auto dbias = [&](BlockVector v) -> const TensorView& { return wanted.vectors[static_cast<std::size_t>(v)]; };
  ArenaScope scope(*ctx.workspace);
  Arena& arena = *ctx.workspace;
  const TensorView dattended = arena.allocate(ctx.compute, a.q.shape), dq = arena.allocate(ctx.compute, a.q.shape);
  const TensorView dk = arena.allocate(ctx.compute, a.k.shape), dv = arena.allocate(ctx.compute, a.v.shape);
  ProductInput attended(c, a.attended), n1(c, a.n1);
  residual_backward(c, dx, BlockVector::PostAttentionNorm, a.o, a.rstd_o, wanted, dy);
  linear_backward(c, Linear::O, attended, dy, dattended, false, dw(Linear::O));
  ops::attention_backward(ctx, a.q, a.keys, a.values, c.batch.spans, attention_shape(c), a.attended, a.lse, dattended, dq,
                          dk, dv);
  unturn(c, dq, BlockVector::QNorm, a.q_raw, a.rstd_q, wanted);
  unturn(c, dk, BlockVector::KNorm, a.k_raw, a.rstd_k, wanted);
  linear_backward(c, Linear::V, n1, dv, dn, false, dw(Linear::V), dbias(BlockVector::VBias));
  linear_backward(c, Linear::K, n1, dk, dn, true, dw(Linear::K), dbias(BlockVector::KBias));
  linear_backward(c, Linear::Q, n1, dq, dn, true, dw(Linear::Q), dbias(BlockVector::QBias));
  ops::rmsnorm_backward(ctx, dn, a.x_in, c.weights[BlockVector::AttentionNorm], a.rstd1, dx,
                        wanted_or_null(wanted.vectors[static_cast<std::size_t>(BlockVector::AttentionNorm)]));
}

}  // namespace

void block_backward(const BlockCall& c, const BlockActivations& a, const TensorView& dx, const BlockBaseGradients& wanted) {
  ArenaScope scope(*c.ctx.workspace);
  Arena& arena = *c.ctx.workspace;
  // The gradient entering a projection back onto the residual stream, and that of a norm's output.
  const TensorView dy = arena.allocate(c.ctx.compute, a.n1.shape), dn = arena.allocate(DType::F32, a.n1.shape);
  mlp_backward(c, a, dx, wanted, dy, dn);
  attention_part_backward(c, a, dx, wanted, dy, dn);
}

}  // namespace temper::model
