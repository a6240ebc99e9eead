// Views of tensors and the memory behind them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/error.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace temper {

enum class Device : std::uint8_t { Cpu, Cuda };

/// A non-owning, row-major view with a row stride. Rank 1 or 2 for operations ([rows, cols]; rank 1 is one row); any rank,
/// and contiguous, for files. Const-ness is the op's contract: inputs are never written.
struct TensorView {
  void* data = nullptr;
  DType dtype = DType::F32;
  Shape shape;
  std::int64_t row_stride = 0;  ///< Elements between rows of a matrix; = cols when contiguous.
  Device device = Device::Cpu;

  TensorView() = default;
  TensorView(void* data_, DType dtype_, Shape shape_, Device device_ = Device::Cpu)
      : data(data_), dtype(dtype_), shape(std::move(shape_)), device(device_) {
    row_stride = shape.rank() == 0 ? 1 : shape[shape.rank() - 1];
  }

  std::int64_t rows() const { return cols() == 0 ? 0 : shape.numel() / cols(); }
  std::int64_t cols() const { return shape.rank() == 0 ? 1 : shape[shape.rank() - 1]; }
  std::size_t bytes() const { return static_cast<std::size_t>(shape.numel()) * dtype_size(dtype); }
  bool contiguous() const { return row_stride == cols() || rows() <= 1; }
  explicit operator bool() const { return data != nullptr; }

  /// Pointer to the first element as T; throws LogicError if the dtype is another.
  template <typename T>
  T* as() const {
    if (dtype != dtype_of<std::remove_const_t<T>>)
      throw LogicError("tensor is {}, used as {}", dtype_name(dtype), dtype_name(dtype_of<std::remove_const_t<T>>));
    return static_cast<T*>(data);
  }
  template <typename T>
  std::span<T> span() const {
    return {as<T>(), static_cast<std::size_t>(shape.numel())};
  }

  /// Rows [begin, end) of a matrix.
  TensorView slice_rows(std::int64_t begin, std::int64_t end) const;
  /// Columns [begin, end) of a matrix: the same rows, the same row stride.
  TensorView slice_cols(std::int64_t begin, std::int64_t end) const;
  /// The same contiguous elements under another shape.
  TensorView reshape(Shape other) const;
};

/// Memory that owns one tensor: 64-byte aligned, uninitialised unless asked, freed with the last copy of the handle.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, Shape shape, bool zero = false);

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }
  const TensorView* operator->() const { return &view_; }
  explicit operator bool() const { return static_cast<bool>(storage_); }
  template <typename T>
  std::span<T> span() const {
    return view_.span<T>();
  }

 private:
  std::shared_ptr<std::byte> storage_;
  TensorView view_;
};

/// A bump allocator over one block. Without memory behind it (`dry`) it hands out views that nobody may look into, and
/// counts: running a schedule on it (ops/dry_run.h) tells the peak. Marks free everything allocated since.
class Arena {
 public:
  Arena() = default;                           ///< Dry: counts only.
  explicit Arena(std::size_t capacity_bytes);  ///< Reserves address space; pages are touched as they are used.
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// Uninitialised, 64-byte aligned. Throws OutOfMemory, with the size asked and the capacity, when it runs dry.
  TensorView allocate(DType dtype, Shape shape);
  std::size_t mark() const { return used_; }
  void release(std::size_t mark) { used_ = mark; }
  std::size_t peak() const { return peak_; }
  bool dry() const { return base_ == nullptr; }

 private:
  std::byte* base_ = nullptr;
  std::size_t capacity_ = 0, used_ = 0, peak_ = 0;
};

/// Frees, at scope's end, what the scope allocated from an arena.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  std::size_t mark_;
};

}  // namespace temper
