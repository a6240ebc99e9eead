#include "train/optimizer_state.h"

#include <algorithm>

namespace temper::train {

MomentArray::MomentArray(std::string name, recipe::StateDtype dtype, std::int64_t size, std::vector<StateRange> ranges,
                         std::uint8_t zero_code)
    : name_(std::move(name)), ranges_(std::move(ranges)) {
  std::int64_t coded = 0, plain = 0;
  for (const StateRange& range : ranges_) {
    const std::int64_t n = range.end - range.begin;
    if (dtype != recipe::StateDtype::Bits8) {
      offsets_.push_back(range.begin);
      continue;
    }
    std::int64_t& at = range.codes ? coded : plain;
    offsets_.push_back(at);
    at += range.codes ? (n + ops::kStateBlock - 1) / ops::kStateBlock * ops::kStateBlock : n;
  }
  if (dtype != recipe::StateDtype::Bits8) {
    for (StateRange& range : ranges_) range.codes = false;
    values_ = Tensor(dtype == recipe::StateDtype::F32 ? DType::F32 : DType::BF16, {size}, true);
    return;
  }
  if (plain > 0) values_ = Tensor(DType::F32, {plain}, true);
  if (coded == 0) return;
  codes_ = Tensor(DType::U8, {coded});
  std::ranges::fill(codes_.span<std::uint8_t>(), zero_code);
  absmax_ = Tensor(DType::F32, {coded / ops::kStateBlock}, true);
}

ops::OptimizerState MomentArray::range(std::size_t i) const {
  const std::int64_t n = ranges_[i].end - ranges_[i].begin;
  const auto part = [](const Tensor& flat, std::int64_t offset, std::int64_t count) {
    return TensorView(static_cast<std::byte*>(flat->data) + static_cast<std::size_t>(offset) * dtype_size(flat->dtype),
                      flat->dtype, {count});
  };
  if (!ranges_[i].codes) return part(values_, offsets_[i], n);
  const std::int64_t blocks = (n + ops::kStateBlock - 1) / ops::kStateBlock;
  return {part(codes_, offsets_[i], n), part(absmax_, offsets_[i] / ops::kStateBlock, blocks)};
}

void MomentArray::append_to(std::vector<StateTensor>& tensors) const {
  if (values_) tensors.push_back({name_, values_});
  if (!codes_) return;
  tensors.push_back({name_ + ".codes", codes_});
  tensors.push_back({name_ + ".absmax", absmax_});
}

std::size_t MomentArray::bytes() const {
  std::size_t sum = 0;
  for (const Tensor* tensor : {&values_, &codes_, &absmax_})
    if (*tensor) sum += (*tensor)->bytes();
  return sum;
}

}  // namespace temper::train
