// Rotations that spread outliers over all channels, so that a group's largest value is no longer far above the others:
// QuaRot (Ashkboos et al. 2024) and SpinQuant's R1 and R2 (Liu et al. 2024), without the rotations that need a runtime's
// help.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ptq/fold.h"

namespace temper::ptq {

/// An orthogonal matrix [n, n]: random signs times a Hadamard matrix over √n. Applied in n log n.
class Rotation {
 public:
  /// Signs are a function of (seed, stream). Throws Unsupported where no Hadamard matrix of order n can be made: n has to be
  /// a power of two times an order that Paley's constructions give for a prime (4, 8, 12, 20, 24, 28, 32, 36, 44, …).
  Rotation(std::int64_t n, std::uint64_t seed, std::uint64_t stream);

  std::int64_t size() const { return static_cast<std::int64_t>(signs_.size()); }
  /// row = row · Q, computed in double.
  void apply(std::span<float> row) const;

 private:
  std::vector<double> signs_;      // over √n
  std::int64_t base_order_ = 1;    // order of the Hadamard matrix that the power of two multiplies
  std::vector<signed char> base_;  // [base_order, base_order]
};

/// A Hadamard matrix of ±1 [n, n] by Paley's constructions I (q + 1, q = 3 mod 4) or II (2q + 2, q = 1 mod 4) for a prime q;
/// 1 and 2 as well; nullopt where neither gives one.
std::optional<std::vector<signed char>> paley(std::int64_t n);

/// Rotates the residual stream (R1) and, head by head, the values (R2), norms folded in first: embedding, every projection
/// and the head, which is untied, change; the model stays a plain one of its architecture. Throws Unsupported
/// for architectures with norms behind a block's outputs, or biases of values.
void rotate(FoldedModel& model, std::uint64_t seed);

}  // namespace temper::ptq
