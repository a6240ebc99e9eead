#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/parallel.h"

namespace temper::model {
namespace {

std::vector<float> llama3_factors(const RopeSpec& rope, std::int64_t rotated) {
  std::vector<float> factors(static_cast<std::size_t>(rotated / 2), static_cast<float>(rope.factor));
  const double original = static_cast<double>(rope.original_max_positions);
  const double long_wave = original / rope.low_freq_factor, short_wave = original / rope.high_freq_factor;
  for (std::size_t i = 0; i < factors.size(); ++i) {
    const double wave =
        2 * std::numbers::pi * std::pow(rope.theta, 2.0 * static_cast<double>(i) / static_cast<double>(rotated));
    if (wave < short_wave) factors[i] = 1.0f;
    if (wave < short_wave || wave > long_wave) continue;
    const double smooth = (original / wave - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
    factors[i] = static_cast<float>(1.0 / ((1.0 - smooth) / rope.factor + smooth));
  }
  return factors;
}

/// The dimension (of `rotated`) that turns `turns` times over the original length.
double yarn_dimension(const RopeSpec& rope, std::int64_t rotated, double turns) {
  const double length = static_cast<double>(rope.original_max_positions);
  return static_cast<double>(rotated) * std::log(length / (turns * 2 * std::numbers::pi)) / (2 * std::log(rope.theta));
}

std::vector<float> yarn_factors(const RopeSpec& rope, std::int64_t rotated) {
  double low = yarn_dimension(rope, rotated, rope.beta_fast), high = yarn_dimension(rope, rotated, rope.beta_slow);
  if (rope.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rotated - 1));
  if (low == high) high += 0.001;
  std::vector<float> factors(static_cast<std::size_t>(rotated / 2));
  for (std::size_t i = 0; i < factors.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    factors[i] = static_cast<float>(1.0 / (ramp / rope.factor + (1.0 - ramp)));
  }
  return factors;
}

}  // namespace

double yarn_attention_factor(double factor) { return factor <= 1.0 ? 1.0 : 0.1 * std::log(factor) + 1.0; }

double longrope_attention_factor(double factor, std::int64_t original_max_positions) {
  return factor <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(factor) / std::log(static_cast<double>(original_max_positions)));
}

std::vector<float> rope_factors(const RopeSpec& rope, std::int64_t rotated, std::int64_t length) {
  if (!rope.factors.empty()) return rope.factors;
  switch (rope.kind) {
    case RopeKind::Default: break;
    case RopeKind::Linear: return std::vector<float>(static_cast<std::size_t>(rotated / 2), static_cast<float>(rope.factor));
    case RopeKind::Llama3: return llama3_factors(rope, rotated);
    case RopeKind::Yarn: return yarn_factors(rope, rotated);
    case RopeKind::LongRope: return length > rope.original_max_positions ? rope.long_factors : rope.short_factors;
  }
  return {};
}

RopeTable rope_table(const RopeSpec& rope, std::int64_t rotated, std::int64_t positions, std::int64_t length) {
  const std::int64_t half = rotated / 2;
  RopeTable table{Tensor(DType::F32, {positions, half}), Tensor(DType::F32, {positions, half})};
  const std::vector<float> factors = rope_factors(rope, rotated, length);
  std::vector<double> frequency(static_cast<std::size_t>(half));
  for (std::int64_t i = 0; i < half; ++i) {
    const std::size_t at = static_cast<std::size_t>(i);
    frequency[at] = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(rotated));
    if (!factors.empty()) frequency[at] /= factors[at];
  }
  float* cos = table.cos.view().as<float>();
  float* sin = table.sin.view().as<float>();
  parallel_for(positions, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p)
      for (std::int64_t i = 0; i < half; ++i) {
        // HF computes the frequency in f32; the angle in f32 then loses digits at long positions, which double keeps.
        const double angle = static_cast<double>(p) * frequency[static_cast<std::size_t>(i)];
        cos[p * half + i] = static_cast<float>(std::cos(angle) * rope.attention_factor);
        sin[p * half + i] = static_cast<float>(std::sin(angle) * rope.attention_factor);
      }
  });
  return table;
}

}  // namespace temper::model
