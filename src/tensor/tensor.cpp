#include "tensor/tensor.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace temper {
namespace {
constexpr std::size_t kAlignment = 64;
std::size_t aligned(std::size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }
}  // namespace

TensorView TensorView::slice_rows(std::int64_t begin, std::int64_t end) const {
  if (shape.rank() != 2 || begin < 0 || end < begin || end > shape[0])
    throw LogicError("rows [{}, {}) of {}", begin, end, shape.str());
  TensorView out = *this;
  if (data) out.data = static_cast<std::byte*>(data) + static_cast<std::size_t>(begin * row_stride) * dtype_size(dtype);
  out.shape = Shape{end - begin, shape[1]};
  return out;
}

TensorView TensorView::slice_cols(std::int64_t begin, std::int64_t end) const {
  if (shape.rank() != 2 || begin < 0 || end < begin || end > shape[1])
    throw LogicError("columns [{}, {}) of {}", begin, end, shape.str());
  TensorView out = *this;
  if (data) out.data = static_cast<std::byte*>(data) + static_cast<std::size_t>(begin) * dtype_size(dtype);
  out.shape = Shape{shape[0], end - begin};
  return out;
}

TensorView TensorView::reshape(Shape other) const {
  if (!contiguous() || other.numel() != shape.numel()) throw LogicError("reshape of {} to {}", shape.str(), other.str());
  return TensorView(data, dtype, std::move(other), device);
}

Tensor::Tensor(DType dtype, Shape shape, bool zero) {
  const std::size_t bytes = std::max(aligned(static_cast<std::size_t>(shape.numel()) * dtype_size(dtype)), kAlignment);
  void* memory = std::aligned_alloc(kAlignment, bytes);
  if (!memory) throw OutOfMemory("cannot allocate {} bytes for a {} tensor {}", bytes, dtype_name(dtype), shape.str());
  if (zero) std::memset(memory, 0, bytes);
  storage_ = std::shared_ptr<std::byte>(static_cast<std::byte*>(memory), [](std::byte* p) { std::free(p); });
  view_ = TensorView(memory, dtype, std::move(shape));
}

Arena::Arena(std::size_t capacity_bytes) : capacity_(aligned(std::max<std::size_t>(capacity_bytes, 1))) {
  void* memory = ::mmap(nullptr, capacity_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw OutOfMemory("cannot reserve {} bytes of working memory", capacity_);
  ::madvise(memory, capacity_, MADV_HUGEPAGE);
  base_ = static_cast<std::byte*>(memory);
}

Arena::~Arena() {
  if (base_) ::munmap(base_, capacity_);
}

TensorView Arena::allocate(DType dtype, Shape shape) {
  const std::size_t bytes = aligned(static_cast<std::size_t>(shape.numel()) * dtype_size(dtype));
  if (base_ && bytes > capacity_ - used_)
    throw OutOfMemory("working memory: {} bytes asked for a {} {}, {} of {} left", bytes, dtype_name(dtype), shape.str(),
                      capacity_ - used_, capacity_);
  // Where there is no memory, an address that is not null, since null views mean other things.
  void* data = base_ ? base_ + used_ : reinterpret_cast<void*>(kAlignment + used_);
  TensorView view(data, dtype, std::move(shape));
  used_ += bytes;
  peak_ = std::max(peak_, used_);
  return view;
}

}  // namespace temper
