#include <fmt/format.h>

#include "ops/ops.h"
#include "quant/codec.h"
#include "suite.h"

namespace temper::bench {
namespace {

void codec(Suite& suite, const quant::Codec& codec) {
  const ExecContext& ctx = suite.ctx();
  const std::int64_t rows = kHidden, cols = kInner;  // the down projection: 1536 columns hold whole blocks of every format
  const std::string shape = fmt::format("{} [{}, {}]", codec.name(), rows, cols);
  if (!codec.fits(cols) ||
      !(suite.wants("merge and encode", shape) || suite.wants("encode", shape) || suite.wants("decode", shape)))
    return;
  const Tensor base = random_tensor(DType::BF16, rows, cols), out(ctx.compute, {rows, cols}, true);
  const Tensor a = random_tensor(DType::F32, kRank, cols), b = random_tensor(DType::F32, rows, kRank);
  const ops::LoraView lora{a, b, 0.01f};
  std::vector<std::byte> encoded(static_cast<std::size_t>(rows) * codec.row_bytes(cols));
  if (codec.encodes()) {
    suite.op("merge and encode", shape, DType::F32,
             [&] { ops::merge_and_encode(ctx, base, &lora, DType::BF16, codec, encoded, nullptr); });
    suite.op("encode", shape, DType::F32,
             [&] { ops::merge_and_encode(ctx, base, nullptr, DType::BF16, codec, encoded, nullptr); });
  }
  suite.op("decode", shape, DType::F32, [&] { ops::decode(ctx, {&codec, rows, cols, encoded}, out); });
}

void merge(Suite& suite) {
  const ExecContext& ctx = suite.ctx();
  const Tensor base = random_tensor(DType::BF16, kInner, kHidden), out(DType::BF16, {kInner, kHidden}, true);
  const Tensor a = random_tensor(DType::F32, kRank, kHidden), b = random_tensor(DType::F32, kInner, kRank);
  suite.op("merge", fmt::format("[{}, {}] rank {}", kInner, kHidden, kRank), DType::F32, [&] {
    ops::merge_lora(ctx, base, {a, b, 2.0f}, out);
  });
}

}  // namespace

void measure_weights(Suite& suite) {
  merge(suite);
  for (const quant::Codec* format : quant::codecs())
    if (suite.wants_format(format->name())) codec(suite, *format);
}

}  // namespace temper::bench
