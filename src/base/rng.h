// Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).
// A draw is a pure function of (seed, stream, index), so resuming or changing the number of threads changes nothing.
#pragma once

#include <array>
#include <cstdint>

namespace temper {

/// Four independent 32-bit words for counter (index, stream) under `seed`.
inline std::array<std::uint32_t, 4> philox(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  std::uint32_t c0 = static_cast<std::uint32_t>(index), c1 = static_cast<std::uint32_t>(index >> 32);
  std::uint32_t c2 = static_cast<std::uint32_t>(stream), c3 = static_cast<std::uint32_t>(stream >> 32);
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<std::uint32_t>(p1);
    c3 = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

/// A sequence of draws from one (seed, stream). Its whole state is `index`, which a checkpoint stores.
class Rng {
 public:
  explicit Rng(std::uint64_t seed, std::uint64_t stream = 0, std::uint64_t index = 0)
      : seed_(seed), stream_(stream), index_(index) {}

  /// 32 uniform bits.
  std::uint32_t next() { return philox(seed_, stream_, index_++)[0]; }

  /// Uniform in [0, 1), 24 bits of it.
  float uniform() { return static_cast<float>(next() >> 8) * 0x1p-24f; }

  /// Uniform integer in [0, n); n > 0. Multiply-shift: bias below n / 2^32.
  std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>((static_cast<std::uint64_t>(next()) * n) >> 32); }

  std::uint64_t index() const { return index_; }

 private:
  std::uint64_t seed_, stream_, index_;
};

/// Fisher–Yates shuffle of anything with size() and operator[].
template <typename Sequence>
void shuffle(Sequence& items, Rng& rng) {
  using std::swap;
  for (std::uint32_t i = static_cast<std::uint32_t>(items.size()); i > 1; --i) swap(items[i - 1], items[rng.below(i)]);
}

}  // namespace temper
