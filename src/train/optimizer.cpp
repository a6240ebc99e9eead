#include "train/optimizer.h"

#include "ops/ops.h"

namespace temper::train {

Optimizer::Optimizer(const recipe::OptimOptions& options, double max_grad_norm, const model::Trainables& trained)
    : options_(options), max_grad_norm_(max_grad_norm) {
  for (const model::ParameterArray& array : trained.arrays()) add(array);
}

void Optimizer::add(const model::ParameterArray& array) {
  const Shape& shape = array.parameters().shape;
  const Tensor& first = first_.emplace_back(DType::F32, shape, true);
  const Tensor& second = second_.emplace_back(DType::F32, shape, true);
  arrays_.push_back(array);
  for (std::size_t begin = 0, end = 0; begin < array.size(); begin = end) {
    const model::Segment& rules = array.segment(begin);
    while (end < array.size() && array.segment(end).weight_decay == rules.weight_decay &&
           array.segment(end).lr_factor == rules.lr_factor)
      ++end;
    const std::int64_t from = array.offset(begin), to = end < array.size() ? array.offset(end) : shape.numel();
    const auto part = [&](const TensorView& flat) { return TensorView(flat.as<float>() + from, DType::F32, {to - from}); };
    pieces_.push_back({part(array.parameters()), part(array.gradients()), part(first), part(second), rules.lr_factor,
                       rules.weight_decay ? static_cast<float>(options_.weight_decay) : 0.0f});
  }
}

void Optimizer::step(const ExecContext& ctx, double grad_norm, double lr) {
  ++steps_;
  ops::AdamW adamw;
  adamw.beta1 = static_cast<float>(options_.beta1);
  adamw.beta2 = static_cast<float>(options_.beta2);
  adamw.eps = static_cast<float>(options_.eps);
  adamw.step = steps_;
  if (max_grad_norm_ > 0 && grad_norm > max_grad_norm_) adamw.grad_scale = static_cast<float>(max_grad_norm_ / grad_norm);
  for (const Piece& piece : pieces_) {
    adamw.lr = static_cast<float>(lr * static_cast<double>(piece.lr_factor));
    adamw.weight_decay = piece.weight_decay;
    ops::adamw(ctx, piece.parameters, piece.gradients, piece.first, piece.second, adamw);
  }
}

std::vector<StateTensor> Optimizer::state() const {
  std::vector<StateTensor> state;
  for (std::size_t i = 0; i < arrays_.size(); ++i) {
    state.push_back({arrays_[i].name() + ".exp_avg", first_[i]});
    state.push_back({arrays_[i].name() + ".exp_avg_sq", second_[i]});
  }
  return state;
}

}  // namespace temper::train
