#include "model/weights.h"

namespace temper::model {

BaseWeights::BaseWeights(const CheckpointReader& reader, DType compute)
    : table_(reader.table()), arch_(reader.arch()), storage_(reader.arch().dtype) {
  tensors_.resize(table_.size());
  for (std::size_t i = 0; i < table_.size(); ++i) {
    const StoredTensor stored = reader.stored(i);
    const DType wanted = table_[i].role == quant::Role::Norm ? DType::F32 : storage_;
    if (stored.as_is(wanted)) {
      tensors_[i] = stored.plain;
      continue;
    }
    Tensor& tensor = owned_.emplace_back(wanted, table_[i].shape);
    reader.read(i, tensor);
    tensors_[i] = tensor;
  }
  head_ = tensors_[table_.head()];
  if (storage_ != compute) {
    head_copy_ = Tensor(compute, head_.shape);
    reader.read(table_.head(), head_copy_);
    head_ = head_copy_;
  }
}

BlockWeights BaseWeights::acquire(const ExecContext& ctx, int layer, WeightForm) {
  BlockWeights weights;
  fill_vectors(weights.vectors, table_, layer, [&](std::size_t index) { return tensors_[index]; });
  for (std::size_t l = 0; l < kLinears.size(); ++l) weights.linear[l] = operand(ctx, layer, l);
  return weights;
}

TensorView BaseWeights::operand(const ExecContext& ctx, int layer, std::size_t linear) {
  const std::size_t index = table_.linear(layer, kLinears[linear]);
  if (trained(index)) return operands_[index];
  const TensorView& resident = tensors_[index];
  if (storage_ == ctx.compute) return resident;
  Tensor& scratch = scratch_[linear];
  if (!scratch) scratch = Tensor(ctx.compute, resident.shape);
  ops::convert(ctx, resident, scratch);
  return scratch;
}

void BaseWeights::replace(const ExecContext& ctx, std::size_t index, Tensor tensor) {
  if (tensor->shape != tensors_[index].shape || tensor->dtype != tensors_[index].dtype)
    throw LogicError("replace {}: {} {} in place of {} {}", table_[index].hf_name, dtype_name(tensor->dtype),
                     tensor->shape.str(), dtype_name(tensors_[index].dtype), tensors_[index].shape.str());
  replaced_.resize(table_.size());
  replaced_[index] = true;
  tensors_[index] = owned_.emplace_back(std::move(tensor));
  if (index != table_.head()) return;
  if (head_copy_) {
    ops::convert(ctx, tensors_[index], head_copy_);
  } else {
    head_ = tensors_[index];
  }
}

void BaseWeights::train(std::size_t index, const TensorView& master) {
  if (master.shape != tensors_[index].shape || master.dtype != DType::F32)
    throw LogicError("master of {}: {} {} for {}", table_[index].hf_name, dtype_name(master.dtype), master.shape.str(),
                     tensors_[index].shape.str());
  masters_.resize(table_.size());
  operands_.resize(table_.size());
  masters_[index] = true;
  std::erase_if(owned_, [&](const Tensor& tensor) { return tensor->data == tensors_[index].data; });
  if (index == table_.head()) head_copy_ = {}, head_ = {};
  tensors_[index] = master;
}

void BaseWeights::masters_changed(const ExecContext& ctx, DType stored) {
  Tensor rounded;
  for (std::size_t i = 0; i < masters_.size(); ++i) {
    if (!masters_[i] || table_[i].role == quant::Role::Norm) continue;
    Tensor& operand = operands_[i];
    if (!operand || operand->dtype != ctx.compute) operand = Tensor(ctx.compute, table_[i].shape);
    if (stored == DType::F32 || stored == ctx.compute) {
      ops::convert(ctx, tensors_[i], operand);
      continue;
    }
    if (!rounded || rounded->shape != operand->shape) rounded = Tensor(stored, operand->shape);
    ops::convert(ctx, tensors_[i], rounded);
    ops::convert(ctx, rounded, operand);
  }
  if (trained(table_.head())) head_ = operands_[table_.head()];
}

EncodedWeights::EncodedWeights(const ExecContext& ctx, BaseWeights& base, const quant::Scheme& scheme, DType merged,
                               Codes codes)
    : base_(base), scheme_(scheme), merged_(merged) {
  require_fit(base.table(), scheme);
  const TensorTable& table = base.table();
  codecs_.resize(table.size());
  inputs_.resize(table.size());
  encoded_.resize(table.size());
  operands_.resize(table.size());
  for (std::size_t i = 0; i < table.size(); ++i) {
    const quant::Codec* codec = codecs_[i] = scheme.codec_for(table[i].place, codes == Codes::GivenWithImportance);
    if (codes == Codes::Rounded && !codec && scheme.mix && table[i].role == quant::Role::Linear &&
        !scheme.rule_for(table[i].place))
      throw BadRecipe("scheme {}: no block divides the rows of {} {}; it can be quantized (it stays 16-bit) but not trained",
                      scheme.name, table[i].hf_name, table[i].shape.str());
    if (const quant::Codec* input = scheme.input_codec_for(table[i].place))
      inputs_[i] = &quant::in_dtype(*input, ctx.compute);
    if (!codec || codes != Codes::Rounded) continue;
    const Shape& shape = table[i].shape;
    encoded_[i].resize(static_cast<std::size_t>(shape[0]) * codec->row_bytes(shape[1]));
    if (table[i].role == quant::Role::Linear) continue;
    ops::merge_and_encode(ctx, base.tensor(i), nullptr, base.storage(), *codec, encoded_[i], nullptr);
    operands_[i] = Tensor(ctx.compute, shape);
    ops::decode(ctx, encoded(i), operands_[i]);
  }
}

void EncodedWeights::set(const ExecContext& ctx, std::size_t index, std::vector<std::byte> bytes) {
  const TensorInfo& info = table()[index];
  const std::size_t expected =
      codecs_[index] ? static_cast<std::size_t>(info.shape[0]) * codecs_[index]->row_bytes(info.shape[1]) : 0;
  if (expected == 0 || bytes.size() != expected)
    throw LogicError("codes of {}: {} bytes, expected {}", info.hf_name, bytes.size(), expected);
  encoded_[index] = std::move(bytes);
  if (info.role == quant::Role::Linear) return;
  if (!operands_[index]) operands_[index] = Tensor(ctx.compute, info.shape);
  ops::decode(ctx, encoded(index), operands_[index]);
}

quant::CodeStats EncodedWeights::encode(const ExecContext& ctx, const Adapters* adapters,
                                        std::vector<quant::CodeStats>* per_tensor, std::span<const Encoding> how) {
  const TensorTable& table = base_.table();
  if (per_tensor) per_tensor->assign(table.size(), {});
  quant::CodeStats sum;
  const auto add = [&](std::size_t index, const quant::CodeStats& stats) {
    sum += stats;
    if (per_tensor) (*per_tensor)[index] = stats;
  };
  for (int layer = 0; layer < table.layers(); ++layer) {
    for (const Linear l : kLinears) {
      const std::size_t index = table.linear(layer, l);
      const Adapters::Entry* entry = adapters ? adapters->find(layer, l) : nullptr;
      const ops::LoraView lora = entry ? adapters->lora(*entry) : ops::LoraView{};
      if (!codecs_[index]) {
        merge(ctx, index, lora);
        continue;
      }
      add(index, encode(ctx, index, entry ? &lora : nullptr, how.empty() ? Encoding::Fit : how[index]));
    }
  }
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i].role == quant::Role::Linear || !codecs_[i] || !base_.trained(i)) continue;
    add(i, encode(ctx, i, nullptr, how.empty() ? Encoding::Fit : how[i]));
    bytes_written(ctx, i);
  }
  return sum;
}

quant::CodeStats EncodedWeights::encode(const ExecContext& ctx, std::size_t index, const ops::LoraView* lora, Encoding how) {
  quant::CodeStats stats;
  if (how == Encoding::Leave) return stats;
  ops::merge_and_encode(ctx, base_.tensor(index), lora, merged_, *codecs_[index], encoded_[index], &stats,
                        how == Encoding::Fit ? ops::Parameters::Fit : ops::Parameters::Kept);
  return stats;
}

/// A projection that stays 16-bit: the merged matrix as an operand. The base has that of one that is trained.
void EncodedWeights::merge(const ExecContext& ctx, std::size_t index, const ops::LoraView& lora) {
  if (base_.trained(index)) return;
  Tensor& operand = operands_[index];
  if (!operand) operand = Tensor(ctx.compute, base_.table()[index].shape);
  if (!lora.a) return ops::convert(ctx, base_.tensor(index), operand);
  if (merged_ == ctx.compute) return ops::merge_lora(ctx, base_.tensor(index), lora, operand);
  const Tensor merged(merged_, operand->shape);
  ops::merge_lora(ctx, base_.tensor(index), lora, merged);
  ops::convert(ctx, merged, operand);
}

BlockWeights EncodedWeights::acquire(const ExecContext& ctx, int layer, WeightForm form) {
  const TensorTable& table = base_.table();
  BlockWeights weights;
  fill_vectors(weights.vectors, table, layer, [&](std::size_t index) { return base_.tensor(index); });
  for (std::size_t l = 0; l < kLinears.size(); ++l) {
    const std::size_t index = table.linear(layer, kLinears[l]);
    if (encoded_[index].empty()) {
      weights.linear[l] = operands_[index] ? ops::Weight(operands_[index]) : base_.operand(ctx, layer, l);
      continue;
    }
    weights.linear[l] = ops::Weight(encoded(index));
    weights.linear[l].input = inputs_[index];
    if (!needs_dense(ctx, weights.linear[l], form)) continue;
    if (!scratch_[l]) scratch_[l] = Tensor(ctx.compute, table[index].shape);
    ops::decode(ctx, encoded(index), scratch_[l]);
    weights.linear[l].dense = scratch_[l];
  }
  return weights;
}

quant::EncodedView EncodedWeights::encoded(std::size_t index) const {
  if (encoded_[index].empty()) return {};
  const TensorInfo& info = base_.table()[index];
  return {codecs_[index], info.shape[0], info.shape[1], encoded_[index]};
}

std::span<std::byte> EncodedWeights::encoded_bytes(std::size_t index) { return encoded_[index]; }

void EncodedWeights::bytes_written(const ExecContext& ctx, std::size_t index) {
  if (operands_[index]) ops::decode(ctx, encoded(index), operands_[index]);
}

ops::Weight EncodedWeights::embedding() const {
  const std::size_t index = table().embedding();
  return operands_[index] ? ops::Weight(operands_[index]) : base_.embedding();
}

ops::Weight EncodedWeights::head(const ExecContext& ctx, WeightForm form) {
  const std::size_t index = table().head();
  ops::Weight head = operands_[index] ? ops::Weight(encoded(index), operands_[index]) : base_.head(ctx, form);
  head.input = inputs_[index];
  return head;
}

}  // namespace temper::model
