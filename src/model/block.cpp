#include "model/block.h"

#include <algorithm>
#include <cmath>

#include "base/profile.h"

namespace temper::model {
namespace {

std::size_t at(Linear l) { return static_cast<std::size_t>(l); }

ops::AttentionShape attention_shape(const ArchSpec& a) {
  return {a.num_heads, a.num_kv_heads, a.head_dim, 1.0f / std::sqrt(static_cast<float>(a.head_dim)), a.sliding_window};
}

void tap(const BlockCall& c, LinearInput which, const TensorView& x) {
  if (c.taps) c.taps->input(c.ctx, c.layer, which, x);
}

/// x (T) as the products of some projections saw it in the forward pass: x itself, or a copy of it, rounded again wherever
/// the next projection's rounding differs from the last one's.
class ProductInput {
 public:
  ProductInput(const BlockCall& call, const TensorView& x) : call_(call), x_(x) {}
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

/// y (= or, with `accumulate`, +=) x · Wᵀ, plus s · (x · Aᵀ) · Bᵀ where an adapter is applied unmerged. x T; y T or F32.
void linear_forward(const BlockCall& c, Linear l, const TensorView& x, const TensorView& y, bool accumulate = false) {
  const Adapters::Entry* lora = c.merged ? nullptr : c.lora[at(l)];
  ArenaScope scope(*c.ctx.workspace);
  // The low-rank part is added in f32, before the one rounding to T.
  const bool through_f32 = lora && y.dtype != DType::F32;
  const TensorView sum = through_f32 ? c.ctx.workspace->allocate(DType::F32, y.shape) : y;
  ops::linear(c.ctx, x, c.weights[l], sum, accumulate);
  if (!lora) return;
  const ProfileSection section("low-rank");
  const TensorView low = c.ctx.workspace->allocate(x.dtype, {x.rows(), lora->a.rows()});
  ops::matmul(c.ctx, ProductInput(c, x).of(l), lora->operand_a, low, {.transpose_b = true, .alpha = c.lora_scale});
  ops::matmul(c.ctx, low, lora->operand_b, sum, {.transpose_b = true, .accumulate = true});
  if (through_f32) ops::convert(c.ctx, sum, y);
}

/// Projections of the same x: one op where no adapter is applied unmerged.
void linears_forward(const BlockCall& c, std::span<const Linear> linears, const TensorView& x,
                     std::span<const TensorView> y) {
  const bool plain = c.merged || std::ranges::all_of(linears, [&](Linear l) { return c.lora[at(l)] == nullptr; });
  std::array<ops::LinearPart, 3> parts;
  for (std::size_t i = 0; i < linears.size(); ++i) {
    parts[i] = {c.weights[linears[i]], y[i]};
    if (!plain) linear_forward(c, linears[i], x, y[i]);
  }
  if (plain) ops::linear(c.ctx, x, std::span(parts).first(linears.size()));
}

/// dx (= or +=) dy · W, and the gradients that are wanted: dB += s·dyᵀ(x·Aᵀ), dA += s·(dy·B)ᵀx, dW += dyᵀx, all with x as
/// the product saw it; dx is that of x before its rounding, too (straight-through). x, dy T; dx T or F32. With merged
/// weights the straight-through estimator takes the gradient of W as that of the merged matrix, so dx has no part of A's.
void linear_backward(const BlockCall& c, Linear l, ProductInput& input, const TensorView& dy, const TensorView& dx,
                     bool accumulate, const TensorView& dw) {
  const ExecContext& ctx = c.ctx;
  const Adapters::Entry* lora = c.lora[at(l)];
  const TensorView x = lora || dw ? input.of(l) : TensorView{};
  ArenaScope scope(*ctx.workspace);
  const bool low_rank_dx = lora && !c.merged;
  const bool through_f32 = low_rank_dx && dx.dtype != DType::F32;
  const TensorView sum = through_f32 ? ctx.workspace->allocate(DType::F32, dx.shape) : dx;
  ops::matmul(ctx, dy, c.weights[l].dense, sum, {.accumulate = accumulate});
  if (dw) ops::matmul(ctx, dy, x, dw, {.transpose_a = true, .accumulate = true});
  if (!lora) return;
  const ProfileSection section("low-rank");
  const TensorView dyb = low_rank_dx ? ctx.workspace->allocate(x.dtype, {x.rows(), lora->a.rows()}) : TensorView{};
  ops::lora_backward(ctx, x, dy, {lora->operand_a, lora->operand_b, lora->grad_a, lora->grad_b, c.lora_scale},
                     low_rank_dx ? &dyb : nullptr);
  if (low_rank_dx) ops::matmul(ctx, dyb, lora->operand_a, sum, {.accumulate = true});
  if (through_f32) ops::convert(ctx, sum, dx);
}

}  // namespace

BlockActivations allocate_activations(Arena& arena, const ArchSpec& arch, DType compute, std::int64_t n) {
  BlockActivations a;
  a.rstd1 = arena.allocate(DType::F32, {n});
  a.n1 = arena.allocate(compute, {n, arch.hidden_size});
  a.q = arena.allocate(compute, {n, arch.q_size()});
  a.k = a.keys = arena.allocate(compute, {n, arch.kv_size()});
  a.v = a.values = arena.allocate(compute, {n, arch.kv_size()});
  a.attended = arena.allocate(compute, {n, arch.q_size()});
  a.lse = arena.allocate(DType::F32, {n, arch.num_heads});
  a.x_mid = arena.allocate(DType::F32, {n, arch.hidden_size});
  a.rstd2 = arena.allocate(DType::F32, {n});
  a.n2 = arena.allocate(compute, {n, arch.hidden_size});
  a.gate = arena.allocate(compute, {n, arch.intermediate_size});
  a.up = arena.allocate(compute, {n, arch.intermediate_size});
  a.act = arena.allocate(compute, {n, arch.intermediate_size});
  return a;
}

void block_recompute(const BlockCall& c, BlockActivations& a) {
  const ExecContext& ctx = c.ctx;
  ops::rmsnorm(ctx, a.x_in, c.weights.attention_norm, c.arch.rms_norm_eps, a.n1, a.rstd1);
  tap(c, LinearInput::Attention, a.n1);
  linears_forward(c, std::array{Linear::Q, Linear::K, Linear::V}, a.n1, std::array{a.q, a.k, a.v});
  ops::rope(ctx, a.q, c.arch.head_dim, c.batch.positions, c.rope.cos, c.rope.sin, false);
  ops::rope(ctx, a.k, c.arch.head_dim, c.batch.positions, c.rope.cos, c.rope.sin, false);
  ops::attention(ctx, a.q, a.keys, a.values, c.batch.spans, attention_shape(c.arch), a.attended, &a.lse);
  tap(c, LinearInput::Output, a.attended);
  if (a.x_mid.data != a.x_in.data) ops::convert(ctx, a.x_in, a.x_mid);
  linear_forward(c, Linear::O, a.attended, a.x_mid, /*accumulate=*/true);
  ops::rmsnorm(ctx, a.x_mid, c.weights.mlp_norm, c.arch.rms_norm_eps, a.n2, a.rstd2);
  tap(c, LinearInput::Mlp, a.n2);
  linears_forward(c, std::array{Linear::Gate, Linear::Up}, a.n2, std::array{a.gate, a.up});
  ops::swiglu(ctx, a.gate, a.up, a.act);
}

void block_forward(const BlockCall& c, BlockActivations& a, const TensorView& x_out) {
  block_recompute(c, a);
  tap(c, LinearInput::Down, a.act);
  if (x_out.data != a.x_mid.data) ops::convert(c.ctx, a.x_mid, x_out);
  linear_forward(c, Linear::Down, a.act, x_out, /*accumulate=*/true);
}

void block_backward(const BlockCall& c, const BlockActivations& a, const TensorView& dx, const BlockBaseGradients& wanted) {
  const ExecContext& ctx = c.ctx;
  const auto dw = [&](Linear l) -> const TensorView& { return wanted.linear[at(l)]; };
  const auto norm_gradient = [](const TensorView& view) { return view ? &view : nullptr; };
  ArenaScope scope(*ctx.workspace);
  Arena& arena = *ctx.workspace;
  const TensorView dy =
      arena.allocate(ctx.compute, a.n1.shape);  // gradient entering a projection back onto the residual stream
  const TensorView dn = arena.allocate(DType::F32, a.n1.shape);  // gradient of a norm's output
  const TensorView dact = arena.allocate(ctx.compute, a.act.shape), dgate = arena.allocate(ctx.compute, a.act.shape);
  const TensorView dup = arena.allocate(ctx.compute, a.act.shape);
  const TensorView dattended = arena.allocate(ctx.compute, a.q.shape), dq = arena.allocate(ctx.compute, a.q.shape);
  const TensorView dk = arena.allocate(ctx.compute, a.k.shape), dv = arena.allocate(ctx.compute, a.v.shape);

  // MLP: x_out = x_mid + down(swiglu(gate(n2), up(n2)))
  ops::convert(ctx, dx, dy);
  ProductInput act(c, a.act), n2(c, a.n2), attended(c, a.attended), n1(c, a.n1);
  linear_backward(c, Linear::Down, act, dy, dact, false, dw(Linear::Down));
  ops::swiglu_backward(ctx, a.gate, a.up, dact, dgate, dup);
  linear_backward(c, Linear::Up, n2, dup, dn, false, dw(Linear::Up));
  linear_backward(c, Linear::Gate, n2, dgate, dn, true, dw(Linear::Gate));
  ops::rmsnorm_backward(ctx, dn, a.x_mid, c.weights.mlp_norm, a.rstd2, dx, norm_gradient(wanted.mlp_norm));

  // Attention: x_mid = x_in + o(attention(rope(q(n1)), rope(k(n1)), v(n1)))
  ops::convert(ctx, dx, dy);
  linear_backward(c, Linear::O, attended, dy, dattended, false, dw(Linear::O));
  ops::attention_backward(ctx, a.q, a.keys, a.values, c.batch.spans, attention_shape(c.arch), a.attended, a.lse, dattended,
                          dq, dk, dv);
  ops::rope(ctx, dq, c.arch.head_dim, c.batch.positions, c.rope.cos, c.rope.sin, true);
  ops::rope(ctx, dk, c.arch.head_dim, c.batch.positions, c.rope.cos, c.rope.sin, true);
  linear_backward(c, Linear::V, n1, dv, dn, false, dw(Linear::V));
  linear_backward(c, Linear::K, n1, dk, dn, true, dw(Linear::K));
  linear_backward(c, Linear::Q, n1, dq, dn, true, dw(Linear::Q));
  ops::rmsnorm_backward(ctx, dn, a.x_in, c.weights.attention_norm, a.rstd1, dx, norm_gradient(wanted.attention_norm));
}

}  // namespace temper::model
