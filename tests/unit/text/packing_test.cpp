// Packed batches hold every token and target once, keep documents apart, and come in an order that can be resumed.
#include "text/packing.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/error.h"
#include "base/rng.h"

namespace temper::text {
namespace {

/// Samples of 1 to `longest` tokens; ids are unique, so that a token says where it comes from.
std::vector<Sample> make(int n, int longest, std::uint64_t seed = 1) {
  Rng rng(seed);
  std::vector<Sample> samples;
  std::int32_t id = 0;
  for (int s = 0; s < n; ++s) {
    Sample sample;
    const auto length = 1 + rng.below(static_cast<std::uint32_t>(longest));
    for (std::uint32_t i = 0; i < length; ++i) {
      sample.ids.push_back(id++);
      sample.labelled.push_back(i > 0 && rng.below(3) > 0);
    }
    samples.push_back(std::move(sample));
  }
  return samples;
}

std::int64_t labels(const std::vector<Sample>& samples) {
  std::int64_t n = 0;
  for (const Sample& s : samples) {
    for (const auto l : s.labelled) n += l;
  }
  return n;
}

/// Checks a batch against the definition, token by token.
void check(const Batch& batch, const std::vector<Sample>& samples, std::multiset<std::int32_t>& targets) {
  std::map<std::int32_t, std::pair<std::size_t, std::size_t>> where;
  for (std::size_t s = 0; s < samples.size(); ++s) {
    for (std::size_t i = 0; i < samples[s].ids.size(); ++i) where[samples[s].ids[i]] = {s, i};
  }
  ASSERT_EQ(batch.tokens.size(), batch.positions.size());
  ASSERT_EQ(batch.tokens.size(), batch.targets.size());
  std::int32_t at = 0;
  std::int64_t labelled = 0;
  for (const Segment& segment : batch.segments) {
    ASSERT_EQ(segment.begin, at);
    ASSERT_GT(segment.end, segment.begin);
    for (; at < segment.end; ++at) {
      const auto k = static_cast<std::size_t>(at);
      const auto [s, i] = where.at(batch.tokens[k]);
      EXPECT_EQ(batch.positions[k], at - segment.begin);
      if (at > segment.begin) {
        EXPECT_EQ(where.at(batch.tokens[k - 1]), std::make_pair(s, i - 1));
      }
      const bool target = i + 1 < samples[s].ids.size() && samples[s].labelled[i + 1];
      EXPECT_EQ(batch.targets[k], target ? samples[s].ids[i + 1] : -1);
      labelled += target;
      if (target) targets.insert(batch.targets[k]);
    }
  }
  EXPECT_EQ(static_cast<std::size_t>(at), batch.tokens.size());
  EXPECT_EQ(labelled, batch.labelled);
}

TEST(Packing, EveryLabelIsATargetOnce) {
  const auto samples = make(60, 30);
  for (const bool split : {false, true}) {
    for (const PackMode mode : {PackMode::Documents, PackMode::Stream}) {
      const Packer packer(samples, {.seq_len = split ? 16 : 40, .mode = mode, .split_long = split});
      std::multiset<std::int32_t> targets;
      for (std::int64_t i = 0; i < packer.size(); ++i) {
        const Batch batch = packer.sequence(i);
        check(batch, samples, targets);
        EXPECT_LE(batch.tokens.size(), split ? 16u : 40u);
        if (mode == PackMode::Stream && i + 1 < packer.size()) {
          EXPECT_EQ(batch.tokens.size(), split ? 16u : 40u);
        }
      }
      EXPECT_EQ(static_cast<std::int64_t>(targets.size()), labels(samples));
      EXPECT_EQ(std::set<std::int32_t>(targets.begin(), targets.end()).size(), targets.size());
      EXPECT_EQ(packer.report().targets, labels(samples));
    }
  }
}

TEST(Packing, DocumentsAreWholeOrCut) {
  const auto samples = make(50, 30);
  const Packer packer(samples, {.seq_len = 20});
  std::int64_t cut = 0, lost = 0;
  for (const Sample& s : samples) {
    cut += s.ids.size() > 20;
    lost += std::max<std::int64_t>(0, static_cast<std::int64_t>(s.ids.size()) - 20);
  }
  EXPECT_GT(cut, 0);
  EXPECT_EQ(packer.report().samples_cut, cut);
  EXPECT_EQ(packer.report().tokens_cut, lost);
  std::map<std::int32_t, std::size_t> lengths;
  for (const Sample& s : samples) lengths[s.ids[0]] = std::min<std::size_t>(s.ids.size(), 20);
  for (std::int64_t i = 0; i < packer.size(); ++i) {
    const Batch batch = packer.sequence(i);
    for (const Segment& g : batch.segments) {
      EXPECT_EQ(lengths.at(batch.tokens[static_cast<std::size_t>(g.begin)]), static_cast<std::size_t>(g.end - g.begin));
    }
  }
  const Packer alone(samples, {.seq_len = 40, .packing = false});
  for (std::int64_t i = 0; i < alone.size(); ++i) EXPECT_EQ(alone.sequence(i).segments.size(), 1u);
}

TEST(Packing, StepsResumeAndSplitAlike) {
  const auto samples = make(40, 30);
  const PackOptions options{.seq_len = 32, .seed = 5};
  Packer all(samples, options), one(samples, options);
  const std::int64_t steps = 3 * all.steps_per_epoch(4);
  for (std::int64_t i = 0; i < steps; ++i) {
    const PackCursor cursor = all.cursor();
    const StepBatches whole = all.next_step(4), parts = one.next_step(4, 3);
    Packer resumed(samples, options);
    resumed.restore(cursor);
    EXPECT_EQ(resumed.next_step(4).micro_batches[0].tokens, whole.micro_batches[0].tokens);
    std::vector<std::int32_t> joined;
    ASSERT_EQ(parts.micro_batches.size(), 3u);
    for (const Batch& batch : parts.micro_batches) {
      EXPECT_FALSE(batch.tokens.empty());
      joined.insert(joined.end(), batch.tokens.begin(), batch.tokens.end());
    }
    EXPECT_EQ(joined, whole.micro_batches[0].tokens);
    EXPECT_EQ(parts.labelled, whole.labelled);
    EXPECT_GT(whole.labelled, 0);
  }
}

TEST(Packing, EpochsSeeAllInDifferentOrder) {
  const auto samples = make(40, 30);
  Packer packer(samples, {.seq_len = 32, .seed = 9});
  std::vector<std::vector<std::int32_t>> first, second;
  for (std::int64_t i = 0; i < packer.size(); ++i) first.push_back(packer.next_step(1).micro_batches[0].tokens);
  for (std::int64_t i = 0; i < packer.size(); ++i) second.push_back(packer.next_step(1).micro_batches[0].tokens);
  EXPECT_NE(first, second);
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  EXPECT_EQ(first, second);
  // A step larger than the data goes round.
  EXPECT_EQ(packer.next_step(3 * packer.size()).labelled, 3 * packer.report().targets);
}

TEST(Packing, Refusals) {
  const auto samples = make(5, 10);
  EXPECT_THROW(Packer(samples, {.seq_len = 1}), BadRecipe);
  EXPECT_THROW(Packer(samples, {.packing = false, .mode = PackMode::Stream}), BadRecipe);
  Packer packer(samples, {});
  EXPECT_THROW(packer.next_step(0), BadRecipe);
  EXPECT_THROW(packer.next_step(2, 3), BadRecipe);
  EXPECT_THROW(packer.restore({0, packer.size() + 1}), BadRecipe);
  const std::vector<Sample> empty;
  EXPECT_THROW(Packer(empty, {}), BadData);
  const std::vector<Sample> unlabelled = {{.ids = {1, 2}, .labelled = {0, 0}}};
  EXPECT_THROW(Packer(unlabelled, {}), BadData);
}

}  // namespace
}  // namespace temper::text
