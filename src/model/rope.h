// Rotary position embeddings (Su et al. 2021) and the ways of stretching them.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/tensor.h"

namespace temper::model {

enum class RopeKind {
  Default,
  Linear,    ///< Positions divided by a factor.
  Llama3,    ///< Long wavelengths divided, short kept, interpolated between.
  Yarn,      ///< Peng et al. 2023: the same by a ramp over dimensions, and cosines and sines scaled.
  LongRope,  ///< Ding et al. 2024: a factor for each dimension, one set up to the original length, another beyond.
};

/// The angle of pair i at position p is p · theta^(-2i/rotated) / factor_i.
struct RopeSpec {
  RopeKind kind = RopeKind::Default;
  double theta = 10000.0;
  double factor = 1.0;
  double low_freq_factor = 1.0;   ///< Llama3: wavelengths longer than original/low are divided by `factor`,
  double high_freq_factor = 4.0;  ///< those shorter than original/high are kept, between them interpolated.
  std::int64_t original_max_positions = 8192;
  double beta_fast = 32.0, beta_slow = 1.0;        ///< Yarn: the ramp lies between so many turns over the original length.
  bool truncate = true;                            ///< Yarn: the ramp's ends are whole dimensions.
  double attention_factor = 1.0;                   ///< Yarn and LongRope: multiplies cosines and sines.
  std::vector<float> short_factors, long_factors;  ///< LongRope [rotated/2].
  std::vector<float> factors;  ///< GGUF's rope_freqs.weight [rotated/2]; used instead of the above when not empty.

  /// True where the divisors depend on how long the sequence is.
  bool depends_on_length() const { return kind == RopeKind::LongRope; }
};

/// Divisors of the angular frequencies [rotated/2] for sequences of up to `length`; empty when all are 1. As GGUF's
/// rope_freqs.weight stores them.
std::vector<float> rope_factors(const RopeSpec& rope, std::int64_t rotated, std::int64_t length = 1);

/// Yarn's and LongRope's default attention factor for a stretch by `factor`.
double yarn_attention_factor(double factor);
double longrope_attention_factor(double factor, std::int64_t original_max_positions);

/// Cosines and sines [positions, rotated/2] F32 each, computed in double, times the attention factor.
struct RopeTable {
  Tensor cos, sin;
};
/// For sequences of up to `length` positions; the table may have more.
RopeTable rope_table(const RopeSpec& rope, std::int64_t rotated, std::int64_t positions, std::int64_t length);

}  // namespace temper::model
