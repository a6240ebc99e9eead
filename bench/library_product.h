// A matrix product as oneDNN itself runs it, with all its threads: the roofline that ours are held against.
#pragma once

#include <cstdint>
#include <memory>

#include "tensor/dtype.h"

namespace temper {

class LibraryProduct {
 public:
  /// [m, k] · [k, n] of random values, the right operand stored transposed if so asked; the result is f32.
  LibraryProduct(DType dtype, std::int64_t m, std::int64_t n, std::int64_t k, bool transpose_b);
  ~LibraryProduct();
  LibraryProduct(LibraryProduct&&) noexcept;

  void run();
  double flops() const { return flops_; }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  double flops_;
};

}  // namespace temper
