#include <fmt/format.h>

#include "ops/ops.h"
#include "quant/codec.h"
#include "suite.h"

namespace temper::bench {
namespace {

/// A projection [n, k] of a step: forward, and the gradient of its input.
void projection(Suite& suite, const std::string& name, std::int64_t n, std::int64_t k, std::int64_t tokens, DType out) {
  const ExecContext& ctx = suite.ctx();
  const DType t = ctx.compute, result = out == DType::F32 ? DType::F32 : t;
  const std::string shape = fmt::format("{} [{}, {}] x {}", name, n, k, tokens);
  if (!suite.wants("linear", shape) && !suite.wants("linear gradient", shape)) return;
  const Tensor x = random_tensor(t, tokens, k), w = random_tensor(t, n, k), y = random_tensor(t, tokens, n);
  const Tensor dx(result, {tokens, k}, true), to(result, {tokens, n}, true);
  suite.product("linear", shape, {tokens, n, k, false, true, t, result},
                [&] { ops::matmul(ctx, x, w, to, {.transpose_b = true}); });
  suite.product("linear gradient", shape, {tokens, k, n, false, false, t, result}, [&] { ops::matmul(ctx, y, w, dx); });
}

/// The low-rank products of a projection [n, k]: X·Aᵀ, +Bᵀ, and both factors' gradients.
void low_rank(Suite& suite, const std::string& name, std::int64_t n, std::int64_t k) {
  const ExecContext& ctx = suite.ctx();
  const DType t = ctx.compute;
  const std::string shape = fmt::format("{} [{}, {}] rank {}", name, n, k, kRank);
  if (!suite.wants("low-rank", shape)) return;
  const Tensor x = random_tensor(t, kTokens, k), dy = random_tensor(t, kTokens, n), a = random_tensor(t, kRank, k);
  const Tensor b = random_tensor(t, n, kRank), xa = random_tensor(t, kTokens, kRank);
  const Tensor da(DType::F32, {kRank, k}, true), db(DType::F32, {n, kRank}, true), to(t, {kTokens, kRank}, true);
  suite.product("low-rank xA", shape, {kTokens, kRank, k, false, true, t, t},
                [&] { ops::matmul(ctx, x, a, to, {.transpose_b = true}); });
  suite.product("low-rank dyB", shape, {kTokens, kRank, n, false, false, t, t}, [&] { ops::matmul(ctx, dy, b, to); });
  suite.product("low-rank dA", shape, {kRank, k, kTokens, true, false, t, DType::F32},
                [&] { ops::matmul(ctx, xa, x, da, {.transpose_a = true}); });
  suite.product("low-rank dB", shape, {n, kRank, kTokens, true, false, t, DType::F32},
                [&] { ops::matmul(ctx, dy, xa, db, {.transpose_a = true}); });
}

/// One token's product with the head, whose codes are read from memory: copies in turn, so that no cache holds them.
void generation(Suite& suite, const quant::Codec& codec) {
  const ExecContext& ctx = suite.ctx();
  const std::string shape = fmt::format("{} [{}, {}] x 1", codec.name(), kVocab, kHidden);
  if (!codec.fits(kHidden) || codec.joins_rows() || !suite.wants("linear from codes", shape)) return;
  const std::size_t bytes = static_cast<std::size_t>(kVocab) * codec.row_bytes(kHidden);
  const std::size_t copies = static_cast<std::size_t>(kBeyondCaches / 2) / bytes + 1;
  const std::vector<std::byte> codes(bytes * copies);
  const Tensor x = random_tensor(ctx.compute, 1, kHidden), y(DType::F32, {1, kVocab}, true);
  std::size_t turn = 0;
  suite.reading("linear from codes", shape, static_cast<double>(bytes), [&] {
    const std::span<const std::byte> part = std::span(codes).subspan(turn++ % copies * bytes, bytes);
    ops::linear(ctx, x, ops::Weight(quant::EncodedView{&codec, kVocab, kHidden, part}), y);
  });
}

}  // namespace

void measure_products(Suite& suite) {
  projection(suite, "q, o", kHidden, kHidden, kTokens, DType::BF16);
  projection(suite, "k, v", kKv, kHidden, kTokens, DType::BF16);
  projection(suite, "gate, up", kInner, kHidden, kTokens, DType::BF16);
  projection(suite, "down", kHidden, kInner, kTokens, DType::BF16);
  projection(suite, "head", kVocab, kHidden, 256, DType::F32);
  low_rank(suite, "q, o", kHidden, kHidden);
  low_rank(suite, "gate, up", kInner, kHidden);
  low_rank(suite, "down", kHidden, kInner);
  for (const quant::Codec* codec : quant::codecs())
    if (suite.wants_format(codec->name())) generation(suite, *codec);
}

}  // namespace temper::bench
