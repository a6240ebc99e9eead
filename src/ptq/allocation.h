// Bit allocation: one choice for each tensor, so that the sum of costs is smallest within a budget of bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace temper::ptq {

/// A way to store a tensor.
struct Choice {
  std::uint64_t bytes = 0;
  double cost = 0.0;  ///< Finite.
};

/// A choice for each tensor, by its index among that tensor's choices.
struct Allocation {
  std::vector<std::size_t> chosen;
  std::uint64_t bytes = 0;
  double cost = 0.0;
};

/// The best allocations within every budget, found at once by dynamic programming over bytes above the smallest allocation
/// (a multiple-choice knapsack; Kellerer, Pferschy, Pisinger 2004, chapter 11). Bytes are counted in units of their greatest
/// common divisor, so that allocations are optimal; where that would take more than kMaxUnits, in the smallest larger unit,
/// every tensor's bytes rounded up: then an allocation is optimal among those that leave less than a unit for each tensor.
/// Of equal costs, the smaller choice: the result depends on nothing but the numbers.
class Frontier {
 public:
  static constexpr std::size_t kMaxUnits = 1 << 16;

  /// `tensors`: at least one choice for each, at most 255.
  explicit Frontier(std::span<const std::vector<Choice>> tensors);

  std::uint64_t smallest() const { return smallest_; }  ///< Bytes of the smallest allocation.
  std::uint64_t largest() const { return largest_; }    ///< Beyond which more bytes are of no use.
  /// The best allocation of at most `budget` bytes. Throws BadRecipe if even the smallest is larger.
  Allocation within(std::uint64_t budget) const;

 private:
  std::vector<std::vector<Choice>> tensors_;
  std::uint64_t smallest_ = 0, largest_ = 0, unit_ = 1;
  std::size_t units_ = 0;
  std::vector<std::uint8_t> picks_;  // [tensor][units + 1]: the choice that is best with so many units for the first tensors
};

}  // namespace temper::ptq
