// A matrix product as oneDNN itself runs it, with all its threads: the roofline that ours are held against.
#pragma once

#include <cstdint>
#include <memory>

#include "tensor/dtype.h"

namespace temper::bench {

/// A product: c [M, N] = op(a) · op(b), a and b of dtype `in`, c of dtype `out`. U8: a is u8, b is s8, c is int32.
struct ProductShape {
  std::int64_t m, n, k;
  bool transpose_a = false, transpose_b = false;
  DType in = DType::BF16, out = DType::BF16;
  double flops() const { return 2.0 * static_cast<double>(m * n * k); }
};

/// On plain row-major operands of small values.
class LibraryProduct {
 public:
  explicit LibraryProduct(const ProductShape& shape);
  ~LibraryProduct();
  LibraryProduct(LibraryProduct&&) noexcept;

  void run();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace temper::bench
