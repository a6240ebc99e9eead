#include "base/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

namespace temper {
namespace {

using Words = std::array<std::uint32_t, 4>;

TEST(Philox, KnownAnswers) {
  // Random123's kat_vectors, "philox4x32 10": counter words in rising order are (index, stream), key words the seed.
  EXPECT_EQ(philox(0, 0, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~0ull, ~0ull, ~0ull), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822ull, 0x0370734413198a2eull, 0x85a308d3243f6a88ull),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, ResumesFromItsIndex) {
  Rng whole(7, 3);
  std::vector<std::uint32_t> draws(100);
  for (auto& d : draws) d = whole.next();
  EXPECT_EQ(whole.index(), 100u);
  Rng resumed(7, 3, 60);
  for (std::size_t i = 60; i < 100; ++i) EXPECT_EQ(resumed.next(), draws[i]);
  EXPECT_NE(Rng(7, 4).next(), draws[0]);
  EXPECT_NE(Rng(8, 3).next(), draws[0]);
}

TEST(Rng, UniformLiesInItsRangeWithItsMean) {
  Rng rng(1);
  constexpr int kDraws = 100'000;
  double sum = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const float u = rng.uniform();
    ASSERT_GE(u, 0.0f);
    ASSERT_LT(u, 1.0f);
    sum += u;
    squares += static_cast<double>(u) * u;
  }
  // Five standard errors: of the mean sqrt(1/12/n), of the mean square sqrt(4/45/n).
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(1.0 / 12 / kDraws));
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / kDraws));
}

TEST(Rng, BelowHitsEveryNumberEquallyOften) {
  Rng rng(2);
  std::array<int, 10> counts{};
  constexpr int kDraws = 100'000;
  for (int i = 0; i < kDraws; ++i) ++counts.at(rng.below(10));
  for (const int c : counts) EXPECT_NEAR(c, kDraws / 10, 5 * std::sqrt(kDraws * 0.1 * 0.9));
  EXPECT_EQ(rng.below(1), 0u);
}

TEST(Rng, ShuffleIsAPermutationAndRepeats) {
  std::vector<int> a(100), b(100);
  std::iota(a.begin(), a.end(), 0);
  b = a;
  Rng first(5), second(5);
  shuffle(a, first);
  shuffle(b, second);
  EXPECT_EQ(a, b);
  EXPECT_FALSE(std::ranges::is_sorted(a));
  std::ranges::sort(a);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a[static_cast<std::size_t>(i)], i);
  std::vector<int> none;
  shuffle(none, first);
}

TEST(Rng, ShuffleReachesEveryOrder) {
  std::array<int, 6> counts{};
  Rng rng(9);
  constexpr int kDraws = 60'000;
  for (int i = 0; i < kDraws; ++i) {
    std::array<int, 3> p{0, 1, 2};
    shuffle(p, rng);
    ++counts.at(static_cast<std::size_t>(p[0] * 2 + (p[1] > p[2])));
  }
  for (const int c : counts) EXPECT_NEAR(c, kDraws / 6, 5 * std::sqrt(kDraws / 6.0 * 5 / 6));
}

}  // namespace
}  // namespace temper
