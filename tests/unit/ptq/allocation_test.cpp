#include "ptq/allocation.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "base/error.h"

using namespace temper;
using namespace temper::ptq;

namespace {

/// The best of all allocations within a budget, by trying every one.
double brute_force(const std::vector<std::vector<Choice>>& tensors, std::uint64_t budget) {
  double best = std::numeric_limits<double>::infinity();
  std::vector<std::size_t> pick(tensors.size(), 0);
  for (;;) {
    std::uint64_t bytes = 0;
    double cost = 0.0;
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      bytes += tensors[t][pick[t]].bytes;
      cost += tensors[t][pick[t]].cost;
    }
    if (bytes <= budget) best = std::min(best, cost);
    std::size_t t = 0;
    while (t < tensors.size() && ++pick[t] == tensors[t].size()) pick[t++] = 0;
    if (t == tensors.size()) return best;
  }
}

}  // namespace

TEST(Allocation, IsTheBestOfAll) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::vector<Choice>> tensors(1 + random() % 5);
    for (auto& choices : tensors) {
      choices.resize(1 + random() % 4);
      for (Choice& choice : choices) {
        choice.bytes = 18 * (1 + random() % 40);
        choice.cost = static_cast<double>(random() % 1000) / 1000.0;  // not falling with the bytes: some are of no use
      }
    }
    const Frontier frontier(tensors);
    for (std::uint64_t budget = frontier.smallest(); budget <= frontier.largest() + 20; budget += 1 + random() % 90) {
      const Allocation found = frontier.within(budget);
      EXPECT_LE(found.bytes, budget);
      EXPECT_DOUBLE_EQ(found.cost, brute_force(tensors, budget));
      std::uint64_t bytes = 0;
      for (std::size_t t = 0; t < tensors.size(); ++t) bytes += tensors[t][found.chosen[t]].bytes;
      EXPECT_EQ(found.bytes, bytes);
    }
  }
}

TEST(Allocation, CoarseUnitsStayWithinTheBudget) {
  std::mt19937_64 random(5);
  std::vector<std::vector<Choice>> tensors(40);
  for (auto& choices : tensors)
    for (int c = 0; c < 8; ++c)
      choices.push_back({1000003 * static_cast<std::uint64_t>(c + 1) + random() % 1000, 1.0 / (1 << c)});
  const Frontier frontier(tensors);
  double previous = std::numeric_limits<double>::infinity();
  for (int i = 0; i <= 50; ++i) {
    const std::uint64_t budget =
        frontier.smallest() + (frontier.largest() - frontier.smallest()) / 50 * static_cast<unsigned>(i);
    const Allocation found = frontier.within(budget);
    EXPECT_LE(found.bytes, budget);
    EXPECT_LE(found.cost, previous);
    // A unit is 280 MB / 65536: what is left unused is less than one for each tensor.
    if (i < 49) {
      EXPECT_GT(found.bytes + 40 * 4300 + 1001000, budget);
    }
    previous = found.cost;
  }
}

TEST(Allocation, BudgetsBelowTheSmallestAreRefused) {
  const std::vector<std::vector<Choice>> tensors = {{{10, 1.0}, {20, 0.5}}};
  const Frontier frontier(tensors);
  EXPECT_EQ(frontier.within(10).chosen, std::vector<std::size_t>{0});
  EXPECT_EQ(frontier.within(20).chosen, std::vector<std::size_t>{1});
  EXPECT_THROW(frontier.within(9), BadRecipe);
}
