#include "model/trainables.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "ops/ops.h"

namespace temper::model {

ParameterArray::ParameterArray(std::string name, std::vector<Segment> segments)
    : name_(std::move(name)), segments_(std::move(segments)) {
  constexpr std::int64_t kLine = 16;  // elements of a cache line
  std::int64_t size = 0;
  for (const Segment& segment : segments_) {
    offsets_.push_back(size);
    size += (segment.shape.numel() + kLine - 1) / kLine * kLine;
  }
  parameters_ = Tensor(DType::F32, {size}, true);
  gradients_ = Tensor(DType::F32, {size}, true);
}

TensorView ParameterArray::piece(const TensorView& flat, std::size_t i) const {
  return TensorView(static_cast<std::byte*>(flat.data) + static_cast<std::size_t>(offsets_[i]) * dtype_size(flat.dtype),
                    flat.dtype, segments_[i].shape);
}

std::int64_t ParameterArray::count() const {
  std::int64_t sum = 0;
  for (const Segment& segment : segments_) sum += segment.shape.numel();
  return sum;
}

void Trainables::add(const ParameterArray& array) {
  for (const ParameterArray& other : arrays_)
    if (other.name() == array.name()) throw LogicError("trainables: two arrays named {}", array.name());
  arrays_.push_back(array);
}

std::int64_t Trainables::count() const {
  std::int64_t sum = 0;
  for (const ParameterArray& array : arrays_) sum += array.count();
  return sum;
}

void Trainables::zero_gradients(const ExecContext& ctx) const {
  for (const ParameterArray& array : arrays_) ops::zero(ctx, array.gradients());
}

double Trainables::gradient_norm(const ExecContext& ctx) const {
  double sum = 0;
  for (const ParameterArray& array : arrays_) sum += ops::sum_of_squares(ctx, array.gradients());
  return std::sqrt(sum);
}

std::string Trainables::first_non_finite() const {
  for (const ParameterArray& array : arrays_)
    for (std::size_t i = 0; i < array.size(); ++i)
      for (const float x : array.gradient(i).span<float>())
        if (!std::isfinite(x)) return fmt::format("gradient of {} ({})", array.segment(i).name, x);
  return {};
}

}  // namespace temper::model
