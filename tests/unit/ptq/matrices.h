// Matrices for tests of post-training quantization: weights, and the second moments of inputs that are correlated and have
// channels of very different sizes, as a model's have.
#pragma once

#include <cmath>

#include "base/rng.h"
#include "ops/cpu/cpu_backend.h"
#include "tensor/tensor.h"

namespace temper::testing {

inline float normal(Rng& rng) {
  float sum = 0.0f;
  for (int i = 0; i < 12; ++i) sum += rng.uniform();
  return sum - 6.0f;
}

inline Tensor normal_matrix(std::int64_t rows, std::int64_t cols, std::uint64_t seed, float scale = 1.0f) {
  Tensor matrix(DType::F32, {rows, cols});
  Rng rng(seed, 40);
  for (float& x : matrix.span<float>()) x = scale * normal(rng);
  return matrix;
}

/// [samples, cols]: a fifth of its directions carry most of it; every seventh channel is large.
inline Tensor correlated_inputs(std::int64_t samples, std::int64_t cols, std::uint64_t seed) {
  Tensor inputs(DType::F32, {samples, cols});
  const std::int64_t hidden = std::max<std::int64_t>(1, cols / 5);
  const Tensor mix = normal_matrix(hidden, cols, seed + 1), latent = normal_matrix(samples, hidden, seed + 2);
  const Tensor noise = normal_matrix(samples, cols, seed + 3, 0.3f);
  for (std::int64_t t = 0; t < samples; ++t)
    for (std::int64_t c = 0; c < cols; ++c) {
      float sum = noise->as<float>()[t * cols + c];
      for (std::int64_t h = 0; h < hidden; ++h)
        sum += latent->as<float>()[t * hidden + h] * mix->as<float>()[h * cols + c] / std::sqrt(static_cast<float>(hidden));
      inputs->as<float>()[t * cols + c] = sum * (c % 7 == 3 ? 6.0f : 1.0f);
    }
  return inputs;
}

/// Σ x xᵀ / samples, F32 [cols, cols].
inline Tensor second_moments(const TensorView& inputs) {
  const std::int64_t n = inputs.cols();
  Tensor moments(DType::F32, {n, n});
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0.0;
      for (std::int64_t t = 0; t < inputs.rows(); ++t)
        sum += static_cast<double>(inputs.as<float>()[t * n + i]) * inputs.as<float>()[t * n + j];
      moments->as<float>()[i * n + j] = static_cast<float>(sum / static_cast<double>(inputs.rows()));
    }
  return moments;
}

}  // namespace temper::testing
