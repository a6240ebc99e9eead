// Tensors with known contents, and comparisons that name the worst element.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <utility>

#include "base/cpu.h"
#include "base/parallel.h"
#include "base/rng.h"
#include "ops/cpu/cpu_backend.h"
#include "reference.h"

namespace temper::ops {

inline void set(const TensorView& x, std::int64_t r, std::int64_t c, double value) {
  const std::int64_t i = r * x.row_stride + c;
  const float f = static_cast<float>(value);
  if (x.dtype == DType::F32) static_cast<float*>(x.data)[i] = f;
  if (x.dtype == DType::BF16) static_cast<bf16*>(x.data)[i] = to_bf16(f);
  if (x.dtype == DType::F16) static_cast<f16*>(x.data)[i] = to_f16(f);
}

inline double get(const TensorView& x, std::int64_t r, std::int64_t c) {
  const std::int64_t i = r * x.row_stride + c;
  if (x.dtype == DType::BF16) return to_float(static_cast<const bf16*>(x.data)[i]);
  if (x.dtype == DType::F16) return to_float(static_cast<const f16*>(x.data)[i]);
  return static_cast<const float*>(x.data)[i];
}

/// A matrix with `padding` elements between rows, filled with random values (or zeros for scale 0).
class TestTensor {
 public:
  TestTensor(DType dtype, std::int64_t rows, std::int64_t cols, std::uint64_t seed, double scale = 1.0,
             std::int64_t padding = 0)
      : storage_(dtype, Shape{rows, cols + padding}, true), view_(storage_->slice_cols(0, cols)) {
    Rng rng(seed, 77);
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < cols; ++c) set(view_, r, c, scale * (rng.uniform() * 2 - 1));
  }
  operator const TensorView&() const { return view_; }
  const TensorView& view() const { return view_; }
  const TensorView* operator->() const { return &view_; }
  reference::Matrix matrix() const { return matrix_of(view_); }
  static reference::Matrix matrix_of(const TensorView& x) {
    reference::Matrix m(x.rows(), x.cols());
    for (std::int64_t r = 0; r < m.rows; ++r)
      for (std::int64_t c = 0; c < m.cols; ++c) m(r, c) = get(x, r, c);
    return m;
  }
  std::vector<double> row() const { return matrix().values; }
  /// All bytes, the padding included.
  std::vector<std::byte> bytes() const {
    const auto* begin = static_cast<const std::byte*>(storage_->data);
    return {begin, begin + storage_->bytes()};
  }

 private:
  Tensor storage_;
  TensorView view_;
};

/// |found − expected| within `error` plus one rounding to found's dtype, everywhere.
inline void expect_close(const TensorView& found, const reference::Matrix& expected, const reference::Matrix& error,
                         const std::string& what) {
  double worst = -1;
  std::int64_t row = 0, col = 0;
  bool ok = true;
  for (std::int64_t r = 0; r < expected.rows; ++r)
    for (std::int64_t c = 0; c < expected.cols; ++c) {
      const double value = get(found, r, c), off = std::abs(value - expected(r, c));
      const double bound =
          error(r, c) * (1 + reference::unit(found.dtype)) + reference::unit(found.dtype) * std::abs(expected(r, c)) + 1e-38;
      ok = ok && off <= bound;
      if (!(off / bound <= worst)) worst = off / bound, row = r, col = c;
    }
  EXPECT_TRUE(ok) << what << ": at [" << row << ", " << col << "] found " << get(found, row, col) << ", expected "
                  << expected(row, col) << " +- " << error(row, col) << " (" << worst << " of the bound)";
}

/// The same with a relative error of n f32 roundings of each value's own magnitude.
inline void expect_close(const TensorView& found, const reference::Matrix& expected, double roundings,
                         const std::string& what, double magnitude = 0.0) {
  reference::Matrix error = expected;
  for (double& e : error.values) e = roundings * reference::kU32 * (std::abs(e) + magnitude);
  expect_close(found, expected, error, what);
}

/// Every test of a backend runs on each instruction set that this CPU has.
class BackendTest : public ::testing::TestWithParam<Isa> {
 protected:
  BackendTest() : arena_(std::size_t{1} << 30) {
    ctx_.backend = &cpu_backend(GetParam());
    ctx_.workspace = &arena_;
  }
  ~BackendTest() override { EXPECT_EQ(arena_.mark(), 0u) << "an op kept workspace"; }

  Arena arena_;
  ExecContext ctx_;
};

/// Restores the number of threads.
class ThreadsScope {
 public:
  explicit ThreadsScope(int n) : before_(num_threads()) { set_num_threads(n); }
  ~ThreadsScope() { set_num_threads(before_); }
  ThreadsScope(const ThreadsScope&) = delete;
  ThreadsScope& operator=(const ThreadsScope&) = delete;

 private:
  int before_;
};

inline std::string isa_test_name(const ::testing::TestParamInfo<Isa>& info) {
  std::string name(isa_name(info.param));
  std::erase(name, '-');
  return name;
}

#define TEMPER_BACKEND_SUITE(Suite) \
  INSTANTIATE_TEST_SUITE_P(Isas, Suite, ::testing::ValuesIn(available_isas()), isa_test_name)

}  // namespace temper::ops
