#include <fmt/format.h>

#include "ops/ops.h"
#include "suite.h"

namespace temper::bench {
namespace {

void norms(Suite& suite) {
  const ExecContext& ctx = suite.ctx();
  const Tensor x = random_tensor(DType::F32, kTokens, kHidden), w(DType::F32, {kHidden}, true);
  const Tensor y(ctx.compute, {kTokens, kHidden}, true), rstd(DType::F32, {kTokens}, true),
      dx(DType::F32, {kTokens, kHidden}, true);
  const Tensor branch = random_tensor(ctx.compute, kTokens, kHidden);
  const std::string shape = fmt::format("[{}, {}]", kTokens, kHidden);
  suite.op("rmsnorm", shape, DType::F32, [&] { ops::rmsnorm(ctx, x, w, 1e-5f, y, rstd); });
  suite.op("rmsnorm gradient", shape, DType::F32, [&] { ops::rmsnorm_backward(ctx, x, x, w, rstd, dx, nullptr); });
  suite.op("add", shape, DType::F32, [&] { ops::add(ctx, x, branch, dx); });
  suite.op("convert to f32", shape, DType::F32, [&] { ops::convert(ctx, branch, dx); });
}

void rotary_and_activation(Suite& suite) {
  const ExecContext& ctx = suite.ctx();
  const Tensor x = random_tensor(ctx.compute, kTokens, kHidden), table = random_tensor(DType::F32, kTokens, kHeadDim / 2);
  std::vector<std::int32_t> positions(kTokens);
  for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<std::int32_t>(i);
  suite.op("rope", fmt::format("[{}, {}]", kTokens, kHidden), DType::F32,
           [&] { ops::rope(ctx, x, kHeadDim, positions, table, table, false); });
  const Tensor gate = random_tensor(ctx.compute, kTokens, kInner), up = random_tensor(ctx.compute, kTokens, kInner);
  const Tensor out(ctx.compute, {kTokens, kInner}, true), other(ctx.compute, {kTokens, kInner}, true);
  const std::string shape = fmt::format("[{}, {}]", kTokens, kInner);
  suite.op("swiglu", shape, DType::F32, [&] { ops::glu(ctx, ops::Gate::Silu, gate, up, out); });
  suite.op("swiglu gradient", shape, DType::F32, [&] { ops::glu_backward(ctx, ops::Gate::Silu, gate, up, up, out, other); });
}

void losses(Suite& suite) {
  const ExecContext& ctx = suite.ctx();
  const DType t = ctx.compute;
  constexpr std::int64_t kRows = 256;
  const std::vector<std::int32_t> targets(512, 7);
  std::vector<float> nll(512);
  const std::string shape = fmt::format("[{}, {}]", kRows, kVocab);
  if (suite.wants("cross-entropy", shape)) {
    const Tensor logits = random_tensor(DType::F32, kRows, kVocab), grads(t, {kRows, kVocab}, true);
    suite.op("cross-entropy", shape, DType::F32, [&] {
      ops::cross_entropy(ctx, logits, std::span(targets).first(kRows), 1.0f, std::span(nll).first(kRows), &grads.view());
    });
  }
  const std::string fused = fmt::format("512 rows, head [{}, {}]", kVocab, kHidden);
  if (!suite.wants("head and cross-entropy", fused)) return;
  const Tensor hidden = random_tensor(t, 512, kHidden), head = random_tensor(t, kVocab, kHidden);
  const Tensor dhidden(DType::F32, {512, kHidden}, true);
  const ops::HeadGradients gradients{dhidden, nullptr};
  suite.op("head and cross-entropy", fused, t,
           [&] { ops::linear_cross_entropy(ctx, hidden, head, targets, 1.0f, nll, &gradients); });
}

/// Adapters of rank 16 have 4.9 million parameters.
void optimizer(Suite& suite) {
  const ExecContext& ctx = suite.ctx();
  constexpr std::int64_t kParameters = 4884480;
  const Tensor p(DType::F32, {kParameters}, true), g(DType::F32, {kParameters}, true), m(DType::F32, {kParameters}, true),
      v(DType::F32, {kParameters}, true);
  const std::string shape = fmt::format("[{}]", kParameters);
  suite.op("adamw", shape, DType::F32, [&] { ops::adamw(ctx, p, g, m, v, {.lr = 1e-3f}); });
  suite.op("sum of squares", shape, DType::F32, [&] { static_cast<void>(ops::sum_of_squares(ctx, p)); });
  suite.op("zero", shape, DType::F32, [&] { ops::zero(ctx, g); });
}

}  // namespace

void measure_pointwise(Suite& suite) {
  norms(suite);
  rotary_and_activation(suite);
  losses(suite);
  optimizer(suite);
}

}  // namespace temper::bench
