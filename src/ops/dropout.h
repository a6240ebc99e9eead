// Dropout's mask: which elements are kept. Small enough for kernels to include.
#pragma once

#include <cstdint>

namespace temper::ops {

/// Dropout (Srivastava et al. 2014) with probability p, a function of counters alone (base/rng.h): element (row, column) of
/// a matrix of N columns is kept where word column % 64 / 16 of philox(seed, stream, ((first_row + row) · ⌈N / 64⌉ + column
/// / 64) · 16 + column % 16) is at least p · 2³².
struct Dropout {
  float p = 0;
  std::uint64_t seed = 0, stream = 0;
  std::int64_t first_row = 0;
};

}  // namespace temper::ops
