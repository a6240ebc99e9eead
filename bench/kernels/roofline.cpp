#include "roofline.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "base/parallel.h"
#include "tensor/tensor.h"

namespace temper::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// Keeps a value, and the loads behind it, from being optimised away.
void keep(float value) { asm volatile("" : : "x"(value) : "memory"); }

// The widest vectors that the CPU has: caches give more than narrow ones can take.
#define TEMPER_WIDEST __attribute__((target_clones("avx512f", "avx2", "default")))

TEMPER_WIDEST void read(const float* x, std::int64_t n) {
  constexpr int kLanes = 64;  // independent sums, so that the additions do not bound the loop
  float sums[kLanes] = {};
  for (std::int64_t i = 0; i + kLanes <= n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane];
  for (const float sum : sums) keep(sum);
}

TEMPER_WIDEST void write(float* x, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) x[i] = 1.0f;
}

TEMPER_WIDEST void triad(float* __restrict a, const float* __restrict b, const float* __restrict c, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) a[i] = b[i] + 0.5f * c[i];
}

}  // namespace

double seconds_of(const std::function<void()>& body) {
  body();
  std::vector<double> times;
  for (const auto begin = Clock::now(); times.size() < 5 || seconds_since(begin) < 0.1;) {
    const auto start = Clock::now();
    body();
    times.push_back(seconds_since(start));
  }
  const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
  std::nth_element(times.begin(), middle, times.end());
  return *middle;
}

double onednn_seconds(const ProductShape& shape) {
  LibraryProduct product(shape);
  return seconds_of([&] { product.run(); });
}

double stream_rate(Stream kind, double bytes) {
  const int arrays = kind == Stream::Triad ? 3 : 1;
  const std::int64_t n = std::max<std::int64_t>(static_cast<std::int64_t>(bytes / sizeof(float)) / arrays, 64);
  const Tensor a(DType::F32, {n}, true), b(DType::F32, {arrays > 1 ? n : 1}, true),
      c(DType::F32, {arrays > 1 ? n : 1}, true);
  float* x = a->as<float>();
  const float *y = b->as<float>(), *z = c->as<float>();
  const double seconds = seconds_of([&] {
    parallel_for(n, 4096, [&](std::int64_t begin, std::int64_t end) {
      switch (kind) {
        case Stream::Read: return read(x + begin, end - begin);
        case Stream::Write: return write(x + begin, end - begin);
        case Stream::Triad: return triad(x + begin, y + begin, z + begin, end - begin);
      }
    });
  });
  return static_cast<double>(n) * sizeof(float) * arrays / seconds;
}

double Rooflines::products(DType in) {
  double& best = products_[in];
  if (best == 0)
    for (const auto& [n, k] : {std::pair{576, 1536}, {1536, 576}, {2048, 2048}}) {
      const ProductShape shape{2048, n, k, false, true, in, in};
      best = std::max(best, shape.flops() / onednn_seconds(shape));
    }
  return best;
}

double Rooflines::memory(Stream kind, double bytes) {
  const int size = static_cast<int>(std::lround(std::log2(std::clamp(bytes, 4096.0, kBeyondCaches))));
  double& rate = memory_[{kind, size}];
  if (rate == 0) rate = stream_rate(kind, std::exp2(size));
  return rate;
}

}  // namespace temper::bench
