// Drawing a token from logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/rng.h"

namespace temper::eval {

struct SamplingOptions {
  double temperature = 0.7;  ///< 0: always the likeliest token (the lowest id where several are).
  std::int64_t top_k = 0;    ///< Only the k likeliest; 0: no limit.
  double top_p =
      1.0;  ///< Only the fewest likeliest tokens whose probabilities (after temperature and top-k) reach top_p; 1: no limit.
};

/// A seeded sampler; the n-th token drawn depends on seed, n and the logits alone.
class Sampler {
 public:
  /// Throws BadRecipe for a temperature or top_k below 0, or top_p outside (0, 1].
  Sampler(const SamplingOptions& options, std::uint64_t seed);

  /// An index into `logits`. Throws Diverged if none is finite or one is NaN.
  std::int32_t sample(std::span<const float> logits);

 private:
  SamplingOptions options_;
  Rng rng_;
  std::vector<std::int32_t> order_;
};

}  // namespace temper::eval
