#include "ptq/fold.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "base/parallel.h"

namespace temper::ptq {
namespace {

using model::Linear;
using model::LinearInput;

constexpr std::array kAttentionLinears = {Linear::Q, Linear::K, Linear::V};
constexpr std::array kOutputLinears = {Linear::O};
constexpr std::array kMlpLinears = {Linear::Gate, Linear::Up};
constexpr std::array kDownLinears = {Linear::Down};

void multiply_columns(const TensorView& matrix, std::span<const float> factors) {
  parallel_for(matrix.rows(), 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      for (std::size_t c = 0; c < factors.size(); ++c) matrix.as<float>()[r * matrix.row_stride + c] *= factors[c];
  });
}

void divide_rows(const TensorView& matrix, std::span<const float> factors) {
  parallel_for(matrix.rows(), 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r)
      for (std::int64_t c = 0; c < matrix.cols(); ++c) matrix.as<float>()[r * matrix.row_stride + c] /= factors[r];
  });
}

Tensor rounded(const TensorView& tensor, DType dtype) {
  Tensor out(dtype, tensor.shape);
  const auto* in = tensor.as<const float>();
  parallel_for(tensor.shape.numel(), 1 << 14, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      if (dtype == DType::BF16)
        out->as<bf16>()[i] = to_bf16(in[i]);
      else if (dtype == DType::F16)
        out->as<f16>()[i] = to_f16(in[i]);
      else
        out->as<float>()[i] = in[i];
    }
  });
  return out;
}

}  // namespace

std::span<const Linear> consumers(LinearInput input) {
  switch (input) {
    case LinearInput::Attention: return kAttentionLinears;
    case LinearInput::Output: return kOutputLinears;
    case LinearInput::Mlp: return kMlpLinears;
    case LinearInput::Down: return kDownLinears;
    case LinearInput::Head: break;
  }
  throw LogicError("the head is no linear of a block");
}

FoldedModel::FoldedModel(const model::CheckpointReader& reader)
    : FoldedModel(reader.arch(), [&](std::size_t index, const TensorView& out) { reader.read(index, out); }) {}

FoldedModel::FoldedModel(model::ArchSpec arch, const std::function<void(std::size_t index, const TensorView& out)>& read)
    : arch_(std::move(arch)), table_(arch_) {
  for (std::size_t i = 0; i < table_.size(); ++i) read(i, tensors_.emplace_back(DType::F32, table_[i].shape));
}

std::int64_t FoldedModel::factors(LinearInput input) const {
  if (input == LinearInput::Output) return arch_.kv_size();
  return input == LinearInput::Down ? arch_.intermediate_size : arch_.hidden_size;
}

std::vector<float> FoldedModel::per_channel(LinearInput input, std::span<const float> per_factor) const {
  if (static_cast<std::int64_t>(per_factor.size()) != factors(input))
    throw LogicError("{} factors for an input of {}", per_factor.size(), factors(input));
  if (input != LinearInput::Output) return {per_factor.begin(), per_factor.end()};
  std::vector<float> channels(static_cast<std::size_t>(arch_.q_size()));
  const std::int64_t shared = arch_.num_heads / arch_.num_kv_heads;
  for (std::int64_t c = 0; c < arch_.q_size(); ++c)
    channels[static_cast<std::size_t>(c)] =
        per_factor[static_cast<std::size_t>(c / arch_.head_dim / shared * arch_.head_dim + c % arch_.head_dim)];
  return channels;
}

void FoldedModel::scale_input(int layer, LinearInput input, std::span<const float> per_factor) {
  for (const float f : per_factor)
    if (!(f > 0.0f) || !std::isfinite(f)) throw LogicError("a channel of a linear's input cannot be divided by {}", f);
  const std::vector<float> channels = per_channel(input, per_factor);
  for (const Linear l : consumers(input)) multiply_columns(linear(layer, l), channels);
  const auto divide = [&](std::size_t index) {
    const auto vector = tensors_[index].span<float>();
    for (std::size_t c = 0; c < vector.size(); ++c) vector[c] /= per_factor[c];
  };
  if (input == LinearInput::Down) return divide_rows(linear(layer, Linear::Up), per_factor);
  if (input != LinearInput::Output)
    return divide(input == LinearInput::Attention ? table_.attention_norm(layer) : table_.mlp_norm(layer));
  divide_rows(linear(layer, Linear::V), per_factor);
  if (const auto bias = table_.vector(layer, model::BlockVector::VBias)) divide(*bias);
}

void FoldedModel::fold_norms() {
  untie();
  const auto fold = [&](std::size_t index, const TensorView& matrix) {
    multiply_columns(matrix, tensors_[index].span<const float>());
  };
  const auto ones = [&](std::size_t index) { std::ranges::fill(tensors_[index].span<float>(), 1.0f); };
  for (int layer = 0; layer < table_.layers(); ++layer) {
    for (const Linear l : kAttentionLinears) fold(table_.attention_norm(layer), linear(layer, l));
    for (const Linear l : kMlpLinears) fold(table_.mlp_norm(layer), linear(layer, l));
    ones(table_.attention_norm(layer));
    ones(table_.mlp_norm(layer));
  }
  fold(table_.final_norm(), tensors_[table_.head()]);
  ones(table_.final_norm());
}

void FoldedModel::untie() {
  if (!arch_.tied) return;
  arch_.tied = false;
  table_ = model::TensorTable(arch_);  // the head comes last
  const TensorView embedding = tensors_[table_.embedding()];
  const Tensor head(DType::F32, embedding.shape);
  std::ranges::copy(embedding.span<const float>(), head.span<float>().begin());
  tensors_.push_back(head);
}

Tensor FoldedModel::stored(std::size_t index, DType storage) const {
  return rounded(tensors_[index], table_[index].role == quant::Role::Norm ? DType::F32 : storage);
}

model::CheckpointReader FoldedModel::finish(const model::CheckpointReader& reader, DType storage) const {
  std::vector<Tensor> tensors;
  for (std::size_t i = 0; i < table_.size(); ++i) tensors.push_back(stored(i, storage));
  model::ArchSpec arch = arch_;
  arch.dtype = storage;
  return model::CheckpointReader::with_weights(reader, arch, std::move(tensors));
}

}  // namespace temper::ptq
