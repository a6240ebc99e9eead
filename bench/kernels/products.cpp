#include <fmt/format.h>

#include <utility>

#include "ops/ops.h"
#include "quant/activations.h"
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

/// A few tokens' product with a matrix of the head's size, whose codes are read from memory: copies in turn, so that no
/// cache holds them. Decoded to 16 bits in registers, or multiplied as integers, which should be no slower.
void generation(Suite& suite, const quant::Codec& codec, std::int64_t tokens, Activations activations) {
  ExecContext ctx = suite.ctx();
  ctx.activations = activations;
  const std::int64_t cols = codec.fits(kHidden) ? kHidden : kInner, rows = kVocab * kHidden / cols;
  const std::string op = activations == Activations::Bits8 ? "integer from codes" : "linear from codes";
  const std::string shape = fmt::format("{} [{}, {}] x {}", codec.name(), rows, cols, tokens);
  if (!codec.fits(cols) || codec.joins_rows() || !suite.wants(op, shape)) return;
  ops::Weight weight(quant::EncodedView{&codec, rows, cols, {}});
  if (activations == Activations::Bits8) {
    if (quant::activation_grid(codec) == quant::ActivationGrid::None) weight.input = quant::find_codec("int8-asym");
    if (!ops::multiplies_integers(ctx, weight)) return;
  }
  const std::size_t bytes = static_cast<std::size_t>(rows) * codec.row_bytes(cols);
  const std::size_t copies = static_cast<std::size_t>(kBeyondCaches / 2) / bytes + 1;
  const std::vector<std::byte> codes(bytes * copies);
  const Tensor x = random_tensor(ctx.compute, tokens, cols), y(DType::F32, {tokens, rows}, true);
  std::size_t turn = 0;
  suite.reading(op, shape, static_cast<double>(bytes), [&] {
    weight.encoded.bytes = std::span(codes).subspan(turn++ % copies * bytes, bytes);
    ops::linear(ctx, x, weight, y);
  });
}

/// 8-bit activations times a projection's codes, their rounding included, against oneDNN's product of u8 and s8 on packed
/// operands; and the bf16 product of the same shape, which it should beat.
void integer(Suite& suite, const std::string& format, const char* input, std::int64_t n, std::int64_t k,
             std::int64_t tokens) {
  ExecContext ctx = suite.ctx();
  ctx.activations = Activations::Bits8;
  const std::string shape = fmt::format("{} [{}, {}] x {}", format, n, k, tokens);
  if (!suite.wants("integer linear", shape) && !suite.wants("dense linear", shape)) return;
  const quant::Codec& codec = *quant::find_codec(format);
  const Tensor x = random_tensor(ctx.compute, tokens, k), w = random_tensor(ctx.compute, n, k),
               y(ctx.compute, {tokens, n}, true);
  std::vector<std::byte> codes(static_cast<std::size_t>(n) * codec.row_bytes(k));
  codec.encode_rows(w, codes);
  ops::Weight weight(quant::EncodedView{&codec, n, k, codes});
  weight.input = input ? quant::find_codec(input) : nullptr;
  suite.product("integer linear", shape, {tokens, n, k, false, true, DType::U8, DType::F32},
                [&] { ops::linear(ctx, x, weight, y); });
  suite.product("dense linear", shape, {tokens, n, k, false, true, ctx.compute, ctx.compute},
                [&] { ops::linear(suite.ctx(), x, ops::Weight(w), y); });
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
  for (const std::int64_t tokens : {1, 8, 512, 2048}) {
    for (const auto& [n, k] : {std::pair{kHidden, kHidden}, std::pair{kInner, kHidden}, std::pair{kHidden, kInner}})
      integer(suite, "int4-sym-g32-bf16", "int8-asym", n, k, tokens);
    integer(suite, "int8-sym-bf16", "int8-asym", kInner, kHidden, tokens);
    for (const char* format : {"q4_0", "q8_0"}) integer(suite, format, nullptr, kInner, kHidden, tokens);
  }
  for (const quant::Codec* codec : quant::codecs())
    for (const std::int64_t tokens : {1, 2, 4, 8})
      for (const Activations activations : {Activations::Bits16, Activations::Bits8})
        if (suite.wants_format(codec->name())) generation(suite, *codec, tokens, activations);
}

}  // namespace temper::bench
