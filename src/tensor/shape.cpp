#include "tensor/shape.h"

#include <fmt/ranges.h>

#include "base/error.h"

namespace temper {

std::int64_t checked_product(const std::vector<std::int64_t>& dims) {
  constexpr std::int64_t kLimit = std::int64_t{1} << 60;  // so that the bytes of 8-byte elements still fit
  std::int64_t product = 1;
  for (const std::int64_t d : dims) {
    if (d < 0) return -1;
    if (d != 0 && product > kLimit / d) return -1;
    product *= d;
  }
  return product;
}

Shape::Shape(std::vector<std::int64_t> dims) : dims_(std::move(dims)), numel_(checked_product(dims_)) {
  if (numel_ < 0) throw LogicError("shape {}: negative extent or too many elements", str());
}

std::string Shape::str() const { return fmt::format("[{}]", fmt::join(dims_, ", ")); }

}  // namespace temper
