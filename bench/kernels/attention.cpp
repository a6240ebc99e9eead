#include <fmt/format.h>

#include "ops/ops.h"
#include "suite.h"

namespace temper::bench {
namespace {

const ops::AttentionShape kShape{kHeads, kKvHeads, kHeadDim, 0.125f};

/// A step's tokens in documents of `length`.
void documents(Suite& suite, std::int32_t length, std::int64_t tokens) {
  const ExecContext& ctx = suite.ctx();
  const DType t = ctx.compute;
  const std::string shape = fmt::format("{} tokens in documents of {}", tokens, length);
  if (!suite.wants("attention", shape) && !suite.wants("attention gradient", shape)) return;
  std::vector<ops::AttentionSpan> spans;
  for (std::int32_t begin = 0; begin < tokens; begin += length) {
    const std::int32_t end = std::min(begin + length, static_cast<std::int32_t>(tokens));
    spans.push_back({begin, end, begin, end});
  }
  const Tensor q = random_tensor(t, tokens, kHidden), k = random_tensor(t, tokens, kKv), v = random_tensor(t, tokens, kKv);
  const Tensor out(t, {tokens, kHidden}, true), lse(DType::F32, {tokens, kHeads}, true), dq(t, {tokens, kHidden}, true);
  const Tensor dk(t, {tokens, kKv}, true), dv(t, {tokens, kKv}, true);
  const auto forward = [&] { ops::attention(ctx, q, k, v, spans, kShape, out, &lse.view()); };
  forward();
  suite.op("attention", shape, t, forward);
  suite.op("attention gradient", shape, t,
           [&] { ops::attention_backward(ctx, q, k, v, spans, kShape, out, lse, q, dq, dk, dv); });
}

/// One new token against a cache.
void generation(Suite& suite, std::int32_t keys) {
  const ExecContext& ctx = suite.ctx();
  const std::string shape = fmt::format("1 token, {} in the cache", keys);
  if (!suite.wants("attention", shape)) return;
  const Tensor q = random_tensor(ctx.compute, 1, kHidden), k = random_tensor(ctx.compute, keys, kKv);
  const Tensor v = random_tensor(ctx.compute, keys, kKv), out(ctx.compute, {1, kHidden}, true);
  const ops::AttentionSpan span{0, 1, 0, keys};
  suite.op("attention", shape, ctx.compute, [&] { ops::attention(ctx, q, k, v, {&span, 1}, kShape, out, nullptr); });
}

}  // namespace

void measure_attention(Suite& suite) {
  for (const std::int32_t length : {128, 512, 2048}) documents(suite, length, kTokens);
  documents(suite, 8192, 8192);
  for (const std::int32_t keys : {256, 2048}) generation(suite, keys);
}

}  // namespace temper::bench
