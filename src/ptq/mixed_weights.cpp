#include "ptq/mixed_weights.h"

#include "quant/overflow.h"

namespace temper::ptq {

MixedWeights::MixedWeights(model::BaseWeights& base)
    : base_(base), entries_(base.table().size()), tables_(base.table().size()) {}

void MixedWeights::set(const ExecContext& ctx, std::size_t index, const quant::Codec* codec) {
  Entry& entry = entries_[index];
  entry = {codec, {}, false};
  tables_[index] = Tensor();
  if (!codec) return;
  const Shape& shape = base_.table()[index].shape;
  entry.bytes.resize(static_cast<std::size_t>(shape[0]) * codec->row_bytes(shape[1]));
  ops::merge_and_encode(ctx, base_.tensor(index), nullptr, base_.storage(), *codec, entry.bytes, nullptr);
  quant::require_no_overflow(encoded(index), base_.table()[index].hf_name);
}

void MixedWeights::activate(const ExecContext& ctx, std::span<const std::size_t> indices) {
  for (Entry& entry : entries_) entry.active = false;
  for (Tensor& table : tables_) table = Tensor();
  for (const std::size_t index : indices) {
    if (!entries_[index].codec) continue;
    entries_[index].active = true;
    if (base_.table()[index].role == quant::Role::Linear) continue;
    tables_[index] = Tensor(ctx.compute, base_.table()[index].shape);
    ops::decode(ctx, encoded(index), tables_[index]);
  }
}

quant::EncodedView MixedWeights::encoded(std::size_t index) const {
  const Shape& shape = base_.table()[index].shape;
  return {entries_[index].codec, shape[0], shape[1], entries_[index].bytes};
}

model::BlockWeights MixedWeights::acquire(const ExecContext& ctx, int layer, model::WeightForm form) {
  model::BlockWeights weights = base_.acquire(ctx, layer, form);
  for (std::size_t l = 0; l < model::kLinears.size(); ++l) {
    const std::size_t index = base_.table().linear(layer, model::kLinears[l]);
    if (!entries_[index].active) continue;
    if (!scratch_[l]) scratch_[l] = Tensor(ctx.compute, base_.table()[index].shape);
    ops::decode(ctx, encoded(index), scratch_[l]);
    weights.linear[l] = ops::Weight(encoded(index), scratch_[l]);
  }
  return weights;
}

ops::Weight MixedWeights::embedding() const {
  const std::size_t index = base_.table().embedding();
  return tables_[index] ? ops::Weight(tables_[index]) : base_.embedding();
}

ops::Weight MixedWeights::head(const ExecContext& ctx, model::WeightForm form) {
  const std::size_t index = base_.table().head();
  return tables_[index] ? ops::Weight(encoded(index), tables_[index]) : base_.head(ctx, form);
}

}  // namespace temper::ptq
