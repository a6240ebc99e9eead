#include "train/optimizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "ops/ops.h"
#include "quant/dynamic_map.h"

namespace temper::train {
namespace {

using model::ParameterArray;
using model::Segment;

/// The segment that begins at an element of an array.
const Segment& segment_at(const ParameterArray& array, std::int64_t offset) {
  std::size_t i = 0;
  while (array.offset(i) != offset) ++i;
  return array.segment(i);
}

}  // namespace

Optimizer::Optimizer(const recipe::OptimOptions& options, double max_grad_norm, const model::Trainables& trained,
                     std::uint64_t seed)
    : options_(options), max_grad_norm_(max_grad_norm), seed_(seed) {
  for (const ParameterArray& array : trained.arrays()) add(array);
}

/// Neighbours of the same rules are one range; blocks of 8-bit states end where their segment does.
std::vector<StateRange> Optimizer::ranges_of(const ParameterArray& array) const {
  const auto codes = [&](const Segment& segment) {
    return options_.state == recipe::StateDtype::Bits8 && segment.shape.numel() >= kMinCodes;
  };
  std::vector<StateRange> ranges;
  for (std::size_t begin = 0, end = 0; begin < array.size(); begin = end) {
    const Segment& rules = array.segment(begin);
    const auto alike = [&](const Segment& other) {
      return !codes(rules) && !codes(other) && other.weight_decay == rules.weight_decay &&
             other.lr_factor == rules.lr_factor;
    };
    for (++end; end < array.size() && alike(array.segment(end));) ++end;
    const std::int64_t to = end < array.size() ? array.offset(end) : array.parameters().shape.numel();
    ranges.push_back({array.offset(begin), to, codes(rules)});
  }
  return ranges;
}

void Optimizer::add(const ParameterArray& array) {
  const std::vector<StateRange> ranges = ranges_of(array);
  const std::int64_t size = array.parameters().shape.numel();
  arrays_.push_back(array);
  const MomentArray first =
      moments_.emplace_back(array.name() + ".exp_avg", options_.state, size, ranges, quant::signed_dynamic_map().code(0.0f));
  const bool two = options_.name == recipe::OptimizerName::AdamW;
  if (two)
    moments_.emplace_back(array.name() + ".exp_avg_sq", options_.state, size, ranges,
                          quant::unsigned_dynamic_map().code(0.0f));
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const auto [begin, end, codes] = ranges[i];
    const auto part = [&, from = begin, n = end - begin](const TensorView& flat) {
      return TensorView(flat.as<float>() + from, DType::F32, {n});
    };
    const Segment& rules = segment_at(array, begin);
    pieces_.push_back({part(array.parameters()), part(array.gradients()), first.range(i),
                       two ? moments_.back().range(i) : ops::OptimizerState(TensorView()), rules.lr_factor,
                       rules.weight_decay ? static_cast<float>(options_.weight_decay) : 0.0f});
  }
}

void Optimizer::step(const ExecContext& ctx, double grad_norm, double lr) {
  ++steps_;
  const auto beta1 = static_cast<float>(options_.beta1), beta2 = static_cast<float>(options_.beta2);
  const float grad_scale =
      max_grad_norm_ > 0 && grad_norm > max_grad_norm_ ? static_cast<float>(max_grad_norm_ / grad_norm) : 1.0f;
  ops::StateDraws draws{.seed = seed_};
  for (const Piece& p : pieces_) {
    const auto piece_lr = static_cast<float>(lr * static_cast<double>(p.lr_factor));
    if (options_.name == recipe::OptimizerName::AdamW)
      ops::adamw(ctx, p.parameters, p.gradients, p.first, p.second,
                 {piece_lr, beta1, beta2, static_cast<float>(options_.eps), p.weight_decay, steps_, grad_scale, draws});
    else
      ops::lion(ctx, p.parameters, p.gradients, p.first,
                {piece_lr, beta1, beta2, p.weight_decay, steps_, grad_scale, draws});
    draws.first += std::uint64_t{1} << 40;  // counters of its own for every piece
  }
}

std::vector<StateTensor> Optimizer::state() const {
  std::vector<StateTensor> state;
  for (const MomentArray& moments : moments_) moments.append_to(state);
  return state;
}

std::string Optimizer::description() const {
  std::size_t bytes = 0;
  for (const MomentArray& moments : moments_) bytes += moments.bytes();
  const char* name = options_.name == recipe::OptimizerName::AdamW ? "adamw" : "lion";
  const char* dtype = options_.state == recipe::StateDtype::F32    ? "f32"
                      : options_.state == recipe::StateDtype::Bf16 ? "bf16"
                                                                   : "8bit";
  return fmt::format("{}, states in {}: {:.2f} MB", name, dtype, static_cast<double>(bytes) * 1e-6);
}

}  // namespace temper::train
