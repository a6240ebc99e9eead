#include "eval/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/error.h"

namespace temper::eval {

Sampler::Sampler(const SamplingOptions& options, std::uint64_t seed) : options_(options), rng_(seed) {
  if (!(options.temperature >= 0.0)) throw BadRecipe("temperature: expected 0 or more, found {}", options.temperature);
  if (options.top_k < 0) throw BadRecipe("top_k: expected 0 or more, found {}", options.top_k);
  if (!(options.top_p > 0.0 && options.top_p <= 1.0))
    throw BadRecipe("top_p: expected above 0 and at most 1, found {}", options.top_p);
}

std::int32_t Sampler::sample(std::span<const float> logits) {
  // One pass: a comparison with what is not a number fails, and that with the largest so far rarely does.
  auto best = logits.end();
  float largest = -std::numeric_limits<float>::infinity();
  for (auto x = logits.begin(); x != logits.end(); ++x) {
    if (*x <= largest) continue;
    if (std::isnan(*x)) throw Diverged("sampling: a logit is not a number");
    best = x;
    largest = *x;
  }
  if (!std::isfinite(largest)) throw Diverged("sampling: no finite logit");
  if (options_.temperature == 0.0) return static_cast<std::int32_t>(best - logits.begin());

  order_.resize(logits.size());
  std::iota(order_.begin(), order_.end(), 0);
  const auto likelier = [&](std::int32_t a, std::int32_t b) {
    const float x = logits[static_cast<std::size_t>(a)], y = logits[static_cast<std::size_t>(b)];
    return x > y || (x == y && a < b);
  };
  if (options_.top_k > 0 && options_.top_k < static_cast<std::int64_t>(order_.size())) {
    std::nth_element(order_.begin(), order_.begin() + options_.top_k - 1, order_.end(), likelier);
    order_.resize(static_cast<std::size_t>(options_.top_k));
  }
  const double max = static_cast<double>(*best);
  const auto weight = [&](std::int32_t id) {
    return std::exp((static_cast<double>(logits[static_cast<std::size_t>(id)]) - max) / options_.temperature);
  };
  double total = 0.0;
  for (const std::int32_t id : order_) total += weight(id);
  if (options_.top_p < 1.0) {
    // A heap, since the likeliest few reach top_p long before a whole vocabulary is sorted.
    const auto less_likely = [&](std::int32_t a, std::int32_t b) { return likelier(b, a); };
    std::ranges::make_heap(order_, less_likely);
    const double enough = options_.top_p * total;
    double kept = 0.0;
    auto end = order_.end();
    while (kept < enough && end != order_.begin()) {
      std::pop_heap(order_.begin(), end, less_likely);
      kept += weight(*--end);
    }
    order_.erase(order_.begin(), end);
    total = kept;
  }
  // Ids ascending, so that a draw does not depend on how the candidates were found.
  if (order_.size() < logits.size()) std::ranges::sort(order_);
  const double high = static_cast<double>(rng_.next()), low = static_cast<double>(rng_.next());
  double left = (high * 0x1p-32 + low * 0x1p-64) * total;
  for (const std::int32_t id : order_) {
    left -= weight(id);
    if (left < 0.0) return id;
  }
  return static_cast<std::int32_t>(best - logits.begin());  // rounding used up the last of the sum
}

}  // namespace temper::eval
