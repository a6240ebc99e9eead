#include "model/weights.h"

#include <cstring>

#include "quant/activations.h"
#include "quant/overflow.h"

namespace temper::model {

namespace {

/// Encoded rows in HF order.
Tensor in_hf_order(const quant::EncodedView& codes, std::int64_t heads) {
  const std::size_t bytes = codes.codec->row_bytes(codes.cols);
  Tensor out(DType::U8, {codes.rows, static_cast<std::int64_t>(bytes)});
  for (std::int64_t r = 0; r < codes.rows; ++r)
    std::memcpy(out->as<std::uint8_t>() + static_cast<std::size_t>(r) * bytes,
                codes.bytes.data() + static_cast<std::size_t>(gguf_row(r, codes.rows, heads)) * bytes, bytes);
  return out;
}

/// The weight with a dense operand, in `scratch` where it has to be made.
ops::Weight dense(const ExecContext& ctx, ops::Weight weight, Tensor& scratch) {
  if (weight.dense && weight.dense.dtype == ctx.compute) return weight;
  if (!scratch || scratch->dtype != ctx.compute) scratch = Tensor(ctx.compute, {weight.rows(), weight.cols()});
  if (weight.encoded.codec)
    ops::decode(ctx, weight.encoded, scratch);
  else
    ops::convert(ctx, weight.dense, scratch);
  weight.dense = scratch;
  return weight;
}

}  // namespace

BaseWeights::BaseWeights(const CheckpointReader& reader, DType compute, Hold how)
    : reader_(reader), table_(reader.table()), arch_(reader.arch()), storage_(reader.arch().dtype), compute_(compute) {
  weights_.resize(table_.size());
  for (std::size_t i = 0; i < table_.size(); ++i) weights_[i] = hold(i, how, compute);
  set_tables(nullptr);
}

ops::Weight BaseWeights::hold(std::size_t index, Hold how, DType compute) {
  const StoredTensor stored = reader_.stored(index);
  const bool vector = table_[index].role == quant::Role::Norm;
  const bool looked_up_only = index == table_.embedding() && index != table_.head();
  if (!stored.plain && how != Hold::Expanded) {
    const ops::Weight weight = reordered(stored);
    if (stored.permuted_heads != 0) reader_.release(index);
    return weight;
  }
  if (stored.plain && looked_up_only && how != Hold::Expanded) return stored.plain;
  const DType wanted = vector ? DType::F32 : how == Hold::Operands ? compute : storage_;
  if (stored.as_is(wanted)) return stored.plain;
  reader_.read(index, owned_.emplace_back(wanted, table_[index].shape));
  reader_.release(index);
  return owned_.back();
}

/// A matrix in a number format, as the file has it but for the order of its rows.
ops::Weight BaseWeights::reordered(const StoredTensor& stored) {
  quant::EncodedView codes = stored.encoded;
  if (stored.permuted_heads != 0) {
    const Tensor& rows = owned_.emplace_back(in_hf_order(codes, stored.permuted_heads));
    codes.bytes = {reinterpret_cast<const std::byte*>(rows->data), rows->bytes()};
  }
  ops::Weight weight(codes);
  const auto twin = [&](const quant::Codec* codec) { return codec ? &quant::in_dtype(*codec, compute_) : codec; };
  weight.input = twin(stored.input), weight.input_range = stored.input_range;
  weight.output = twin(stored.output), weight.output_range = stored.output_range;
  return weight;
}

/// What is looked up and what the head multiplies with, after either has changed. Without a context, from the file.
void BaseWeights::set_tables(const ExecContext* ctx) {
  const std::size_t embedding = table_.embedding(), head = table_.head();
  const auto used = [&](std::size_t index) {
    return trained(index) && operands_[index] ? ops::Weight(operands_[index]) : weights_[index];
  };
  embedding_ = used(embedding);
  head_ = used(head);
  if (!head_.dense || head_.dense.dtype == compute_ || trained(head)) return;
  if (!head_copy_) head_copy_ = Tensor(compute_, table_[head].shape);
  if (ctx)
    ops::convert(*ctx, head_.dense, head_copy_);
  else
    reader_.read(head, head_copy_);
  head_ = head_copy_;
}

BlockWeights BaseWeights::acquire(const ExecContext& ctx, int layer, WeightForm form) {
  BlockWeights weights;
  fill_vectors(weights.vectors, table_, layer, [&](std::size_t index) { return weights_[index].dense; });
  for (std::size_t l = 0; l < kLinears.size(); ++l) weights.linear[l] = linear(ctx, layer, l, form);
  return weights;
}

ops::Weight BaseWeights::linear(const ExecContext& ctx, int layer, std::size_t linear, WeightForm form) {
  const std::size_t index = table_.linear(layer, kLinears[linear]);
  if (trained(index)) return operands_[index];
  const ops::Weight& held = weights_[index];
  return held.dense || needs_dense(ctx, held, form) ? dense(ctx, held, scratch_[linear]) : held;
}

ops::Weight BaseWeights::head(const ExecContext& ctx, WeightForm form) {
  return !head_.dense && needs_dense(ctx, head_, form) ? dense(ctx, head_, head_scratch_) : head_;
}

TensorView BaseWeights::tensor(std::size_t index) const {
  const TensorView& dense = weights_[index].dense;
  const bool vector = table_[index].role == quant::Role::Norm;
  const bool looked_up_only = index == table_.embedding() && index != table_.head();
  if (!dense || !(vector || trained(index) || dense.dtype == storage_ || looked_up_only))
    throw LogicError("{} is not resident in {}", table_[index].hf_name, dtype_name(storage_));
  return dense;
}

TensorView BaseWeights::values(const ExecContext& ctx, std::size_t index, DType dtype) const {
  const ops::Weight& weight = weights_[index];
  if (!weight.encoded.codec) {
    const bool converted = weight.dense.dtype != storage_ && !trained(index) && table_[index].role == quant::Role::Linear;
    if (!converted) return weight.dense;
    const TensorView stored = ctx.workspace->allocate(storage_, table_[index].shape);  // Hold::Operands
    reader_.read(index, stored);
    return stored;
  }
  const TensorView out = ctx.workspace->allocate(dtype, table_[index].shape);
  if (dtype != DType::F16) {
    ops::decode(ctx, weight.encoded, out);
    return out;
  }
  const ArenaScope scope(*ctx.workspace);
  const TensorView wide = ctx.workspace->allocate(DType::F32, table_[index].shape);
  ops::decode(ctx, weight.encoded, wide);
  ops::convert(ctx, wide, out);
  return out;
}

void BaseWeights::replace(const ExecContext& ctx, std::size_t index, Tensor tensor) {
  const TensorView resident = this->tensor(index);
  if (tensor->shape != resident.shape || tensor->dtype != resident.dtype)
    throw LogicError("replace {}: {} {} in place of {} {}", table_[index].hf_name, dtype_name(tensor->dtype),
                     tensor->shape.str(), dtype_name(resident.dtype), resident.shape.str());
  replaced_.resize(table_.size());
  replaced_[index] = true;
  weights_[index] = owned_.emplace_back(std::move(tensor));
  if (index == table_.head() || index == table_.embedding()) set_tables(&ctx);
}

void BaseWeights::train(std::size_t index, const TensorView& master) {
  if (master.shape != table_[index].shape || master.dtype != DType::F32)
    throw LogicError("master of {}: {} {} for {}", table_[index].hf_name, dtype_name(master.dtype), master.shape.str(),
                     table_[index].shape.str());
  masters_.resize(table_.size());
  operands_.resize(table_.size());
  masters_[index] = true;
  const ops::Weight& held = weights_[index];
  const void* data = held.dense ? held.dense.data : static_cast<const void*>(held.encoded.bytes.data());
  std::erase_if(owned_, [&](const Tensor& tensor) { return tensor->data == data; });
  if (index == table_.head()) head_copy_ = {};
  weights_[index] = master;
  set_tables(nullptr);
}

void BaseWeights::masters_changed(const ExecContext& ctx, DType stored) {
  for (std::size_t i = 0; i < masters_.size(); ++i) {
    if (!masters_[i] || table_[i].role == quant::Role::Norm) continue;
    Tensor& operand = operands_[i];
    if (!operand || operand->dtype != ctx.compute) operand = Tensor(ctx.compute, table_[i].shape);
    if (stored == DType::F32 || stored == ctx.compute) {
      ops::convert(ctx, weights_[i].dense, operand);
      continue;
    }
    const ArenaScope scope(*ctx.workspace);
    const TensorView rounded = ctx.workspace->allocate(stored, operand->shape);
    ops::convert(ctx, weights_[i].dense, rounded);
    ops::convert(ctx, rounded, operand);
  }
  set_tables(&ctx);
}

EncodedWeights::EncodedWeights(const ExecContext& ctx, BaseWeights& base, const quant::Scheme& scheme, DType merged,
                               Codes codes)
    : base_(base), scheme_(scheme), merged_(merged) {
  require_fit(base.table(), scheme);
  const TensorTable& table = base.table();
  codecs_.resize(table.size());
  inputs_.resize(table.size());
  outputs_.resize(table.size());
  factors_.resize(table.size());
  encoded_.resize(table.size());
  operands_.resize(table.size());
  for (std::size_t i = 0; i < table.size(); ++i) {
    const quant::Codec* codec = codecs_[i] = scheme.codec_for(table[i].place, codes == Codes::GivenWithImportance);
    if (codes == Codes::Rounded && !codec && scheme.mix && table[i].role == quant::Role::Linear &&
        !scheme.rule_for(table[i].place))
      throw BadRecipe("scheme {}: no block divides the rows of {} {}; it can be quantized (it stays 16-bit) but not trained",
                      scheme.name, table[i].hf_name, table[i].shape.str());
    if (const quant::Codec* input = scheme.input_codec_for(table[i].place))
      inputs_[i].codec = &quant::in_dtype(*input, ctx.compute);
    if (const quant::Codec* output = scheme.output_codec_for(table[i].place))
      outputs_[i].codec = &quant::in_dtype(*output, ctx.compute);
    if (!codec || codes != Codes::Rounded) continue;
    const Shape& shape = table[i].shape;
    encoded_[i].resize(static_cast<std::size_t>(shape[0]) * codec->row_bytes(shape[1]));
    if (table[i].role == quant::Role::Linear) continue;
    const ArenaScope scope(*ctx.workspace);
    ops::merge_and_encode(ctx, base.values(ctx, i, base.storage()), nullptr, base.storage(), *codec, encoded_[i], nullptr);
    quant::require_no_overflow(encoded(i), table[i].hf_name);
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
  quant::require_no_overflow(encoded(index), info.hf_name);
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
  const ArenaScope scope(*ctx.workspace);
  ops::merge_and_encode(ctx, base_.values(ctx, index, merged_), lora, merged_, *codecs_[index], encoded_[index], &stats,
                        how == Encoding::Fit ? ops::Parameters::Fit : ops::Parameters::Kept,
                        how == Encoding::Fit ? factors_[index] : std::span<const float>());
  const std::string why = quant::overflow_of(encoded(index), base_.table()[index].hf_name);
  if (!why.empty() && (lora || base_.trained(index))) throw Diverged("{}", why);
  if (!why.empty()) throw Unsupported("{}", why);
  return stats;
}

/// A projection that stays 16-bit: the merged matrix as an operand. The base has that of one without an adapter.
void EncodedWeights::merge(const ExecContext& ctx, std::size_t index, const ops::LoraView& lora) {
  if (!lora.a) return;
  Tensor& operand = operands_[index];
  if (!operand) operand = Tensor(ctx.compute, base_.table()[index].shape);
  const ArenaScope scope(*ctx.workspace);
  const TensorView base = base_.values(ctx, index, merged_);
  if (merged_ == ctx.compute) return ops::merge_lora(ctx, base, lora, operand);
  const TensorView merged = ctx.workspace->allocate(merged_, operand->shape);
  ops::merge_lora(ctx, base, lora, merged);
  ops::convert(ctx, merged, operand);
}

BlockWeights EncodedWeights::acquire(const ExecContext& ctx, int layer, WeightForm form) {
  const TensorTable& table = base_.table();
  BlockWeights weights;
  fill_vectors(weights.vectors, table, layer, [&](std::size_t index) { return base_.tensor(index); });
  for (std::size_t l = 0; l < kLinears.size(); ++l) {
    const std::size_t index = table.linear(layer, kLinears[l]);
    if (encoded_[index].empty()) {
      weights.linear[l] = operands_[index] ? ops::Weight(operands_[index]) : base_.linear(ctx, layer, l, form);
      continue;
    }
    weights.linear[l] = ops::Weight(encoded(index));
    set_rounding(weights.linear[l], index);
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
  set_rounding(head, index);
  return head;
}

void EncodedWeights::set_rounding(ops::Weight& weight, std::size_t index) const {
  const auto usable = [](const quant::InputFormat& format) {
    return format.codec && (format.range.known() || !quant::has_static_range(*format.codec));
  };
  if (usable(inputs_[index])) weight.input = inputs_[index].codec, weight.input_range = inputs_[index].range;
  if (usable(outputs_[index])) weight.output = outputs_[index].codec, weight.output_range = outputs_[index].range;
}

void EncodedWeights::set_factors(std::size_t index, std::span<const float> factors) {
  const quant::EncodedView codes = encoded(index);
  if (!codes.codec || !codes.codec->has_learnable_scales() ||
      std::ssize(factors) != codes.rows * codes.codec->groups(codes.cols))
    throw LogicError("{}: {} factors of scales", table()[index].hf_name, factors.size());
  factors_[index] = factors;
}

ops::LearntScales EncodedWeights::learnt_scales(const ExecContext& ctx, const Adapters* adapters, std::size_t index,
                                                std::int64_t first, std::int64_t n, ops::LoraView& lora) const {
  const quant::EncodedView codes = encoded(index);
  const std::int64_t groups = codes.codec->groups(codes.cols);
  ops::LearntScales scales{
      base_.values(ctx, index, merged_).slice_rows(first, first + n),
      nullptr,
      merged_,
      {codes.codec, n, codes.cols, codes.row_range(first, first + n)},
      factors_[index].subspan(static_cast<std::size_t>(first * groups), static_cast<std::size_t>(n * groups))};
  if (const Adapters::Entry* entry = adapters ? adapters->find(index) : nullptr) {
    lora = adapters->lora(*entry);
    lora.b = lora.b.slice_rows(first, first + n);
    if (lora.gain) lora.gain = lora.gain.slice_rows(first, first + n);
    scales.lora = &lora;
  }
  return scales;
}

}  // namespace temper::model
