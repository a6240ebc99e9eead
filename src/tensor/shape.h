// Shapes: row-major, slowest dimension first, as torch prints them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace temper {

/// Extents of a tensor. Extents are checked on construction: none negative, and their product is at most 2^60 (LogicError).
/// Readers check a file's numbers with `checked_product` before they build one.
class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) : Shape(std::vector<std::int64_t>(dims)) {}
  explicit Shape(std::vector<std::int64_t> dims);

  std::size_t rank() const { return dims_.size(); }
  std::int64_t operator[](std::size_t i) const { return dims_[i]; }
  std::int64_t numel() const { return numel_; }  ///< 1 for rank 0.
  const std::vector<std::int64_t>& dims() const { return dims_; }
  bool operator==(const Shape&) const = default;
  std::string str() const;  ///< "[2, 3]"

 private:
  std::vector<std::int64_t> dims_;
  std::int64_t numel_ = 1;
};

/// Product of the dims, or -1 if one is negative or the product passes 2^60 (bytes of any dtype then fit 64 bits).
std::int64_t checked_product(const std::vector<std::int64_t>& dims);

}  // namespace temper
