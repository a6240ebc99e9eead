#include "model/held_weights.h"

#include <cstring>

#include "quant/activations.h"

namespace temper::model {
namespace {

/// Encoded rows in HF order.
Tensor reordered(const quant::EncodedView& codes, std::int64_t heads) {
  const std::size_t bytes = codes.codec->row_bytes(codes.cols);
  Tensor out(DType::U8, {codes.rows, static_cast<std::int64_t>(bytes)});
  for (std::int64_t r = 0; r < codes.rows; ++r)
    std::memcpy(out->as<std::uint8_t>() + static_cast<std::size_t>(r) * bytes,
                codes.bytes.data() + static_cast<std::size_t>(gguf_row(r, codes.rows, heads)) * bytes, bytes);
  return out;
}

}  // namespace

HeldWeights::HeldWeights(const CheckpointReader& reader, DType compute) : table_(reader.table()) {
  for (std::size_t i = 0; i < table_.size(); ++i)
    weights_.push_back(hold(reader, i, table_[i].role == quant::Role::Norm ? DType::F32 : compute));
  const StoredTensor stored = reader.stored(table_.embedding());
  embedding_ = stored.plain ? ops::Weight(stored.plain) : weights_[table_.embedding()];
}

ops::Weight HeldWeights::hold(const CheckpointReader& reader, std::size_t index, DType wanted) {
  const StoredTensor stored = reader.stored(index);
  if (stored.as_is(wanted)) return stored.plain;
  if (stored.plain) {
    const bool looked_up_only = index == table_.embedding() && index != table_.head();
    if (looked_up_only) return stored.plain;
    reader.read(index, owned_.emplace_back(wanted, table_[index].shape));
    return owned_.back();
  }
  quant::EncodedView codes = stored.encoded;
  if (stored.permuted_heads != 0) {
    const Tensor& rows = owned_.emplace_back(reordered(codes, stored.permuted_heads));
    codes.bytes = {reinterpret_cast<const std::byte*>(rows->data), rows->bytes()};
  }
  ops::Weight weight(codes);
  if (stored.input) weight.input = &quant::in_dtype(*stored.input, wanted);
  return weight;
}

ops::Weight HeldWeights::dense(const ExecContext& ctx, ops::Weight weight, Tensor& scratch) {
  if (weight.dense) return weight;
  if (!scratch) scratch = Tensor(ctx.compute, {weight.rows(), weight.cols()});
  ops::decode(ctx, weight.encoded, scratch);
  weight.dense = scratch;
  return weight;
}

BlockWeights HeldWeights::acquire(const ExecContext& ctx, int layer, WeightForm form) {
  BlockWeights weights;
  fill_vectors(weights.vectors, table_, layer, [&](std::size_t index) { return weights_[index].dense; });
  for (std::size_t l = 0; l < kLinears.size(); ++l) {
    const ops::Weight& held = weights_[table_.linear(layer, kLinears[l])];
    weights.linear[l] = needs_dense(ctx, held, form) ? dense(ctx, held, scratch_[l]) : held;
  }
  return weights;
}

ops::Weight HeldWeights::head(const ExecContext& ctx, WeightForm form) {
  const ops::Weight& held = weights_[table_.head()];
  return needs_dense(ctx, held, form) ? dense(ctx, held, head_scratch_) : held;
}

}  // namespace temper::model
