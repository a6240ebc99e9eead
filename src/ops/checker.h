#pragma once
/// Internal to ops: what every op checks before it is dispatched.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "base/error.h"
#include "base/profile.h"
#include "ops/ops.h"

namespace temper::ops {

struct Named {
  const char* name = nullptr;
  const TensorView* view = nullptr;
};

inline std::string describe(std::span<const Named> tensors) {
  std::string text;
  for (const Named& t : tensors) {
    if (!text.empty()) text += ", ";
    text += fmt::format("{} {} {} stride {}", t.name, dtype_name(t.view->dtype), t.view->shape.str(), t.view->row_stride);
  }
  return text;
}

inline double tensor_bytes(const TensorView& x) {
  return x.data ? static_cast<double>(x.shape.numel()) * static_cast<double>(dtype_size(x.dtype)) : 0.0;
}

/// One op's checks: every failure names the op, what was expected and all its tensors. It lives as long as the op runs, and
/// is what a profile sees of it.
class Checker {
 public:
  Checker(const char* op, const ExecContext& ctx, std::initializer_list<Named> tensors)
      : op_(op), count_(tensors.size()), profile_(op) {
    std::copy(tensors.begin(), tensors.end(), tensors_.begin());
    if (profile_.active())
      for (const Named& t : tensors) profile_.add(0, tensor_bytes(*t.view));
    if (!ctx.backend) throw LogicError("{}: the context has no backend", op);
    for (const Named& t : tensors) {
      require(t.view->shape.rank() == 1 || t.view->shape.rank() == 2, "rank 1 or 2");
      require(t.view->rows() <= 1 || t.view->row_stride >= t.view->cols(), "row strides of at least the columns");
      require(t.view->data || t.view->shape.numel() == 0, "data behind every tensor");
      require(t.view->device == Device::Cpu, "tensors on the CPU");
    }
  }

  void require(bool ok, const char* expected) const {
    if (!ok) throw LogicError("{}: expected {}; found {}", op_, expected, describe(tensors()));
  }
  void same_shape(const TensorView& a, const TensorView& b) const {
    require(a.rows() == b.rows() && a.cols() == b.cols(), "tensors of one shape");
  }
  void shape(const TensorView& a, std::int64_t rows, std::int64_t cols, const char* expected) const {
    require(a.rows() == rows && a.cols() == cols, expected);
  }
  void f32(std::initializer_list<const TensorView*> views) const {
    for (const TensorView* v : views) dtype(v->dtype == DType::F32, "F32");
  }
  void dtype(bool ok, const char* expected) const {
    if (!ok) throw Unsupported("{}: expected dtype {}; found {}", op_, expected, describe(tensors()));
  }
  /// T: F32 or BF16.
  void activation(const TensorView& a) const { dtype(a.dtype == DType::F32 || a.dtype == DType::BF16, "F32 or BF16"); }
  void storage(const TensorView& a) const {
    dtype(a.dtype == DType::F32 || a.dtype == DType::BF16 || a.dtype == DType::F16, "F32, BF16 or F16");
  }
  /// For the profile: the op's arithmetic, and what it moves beside each of its tensors once.
  void work(double flops, double other_bytes = 0) const { profile_.add(flops, other_bytes); }
  void indices(std::span<const std::int32_t> values, std::int64_t limit, const char* what) const {
    for (std::size_t i = 0; i < values.size(); ++i)
      if (values[i] < 0 || values[i] >= limit)
        throw LogicError("{}: {} {} at {} is outside of [0, {})", op_, what, values[i], i, limit);
  }

 private:
  const char* op_;
  std::span<const Named> tensors() const { return {tensors_.data(), count_}; }
  std::array<Named, 10> tensors_;  // no allocation: every op is checked on every call
  std::size_t count_;
  mutable ProfileScope profile_;
};

inline bool is_empty(const TensorView& a) { return a.shape.numel() == 0; }

inline std::int64_t length(std::span<const std::int32_t> s) { return static_cast<std::int64_t>(s.size()); }

/// The bytes of codes, where there are any.
inline void check_encoded(const char* op, const quant::EncodedView& encoded) {
  if (!encoded.codec) return;
  const std::size_t bytes = static_cast<std::size_t>(encoded.rows) * encoded.codec->row_bytes(encoded.cols);
  if (encoded.bytes.size() != bytes)
    throw LogicError("{}: expected {} encoded bytes, found {}", op, bytes, encoded.bytes.size());
}

}  // namespace temper::ops
