// How a text is cut into windows, against the definitions written out.
#include "eval/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "base/error.h"

namespace temper::eval {
namespace {

/// Ids that are their own positions, so that a window's tokens say where they come from.
std::vector<std::int32_t> numbers(std::int32_t n) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

TEST(StrideWindows, ScoreEveryTokenOnceWithEnoughContext) {
  for (const std::int32_t n : {2, 3, 7, 8, 9, 10, 31, 64, 100})
    for (const std::int64_t context : {2, 3, 8, 16})
      for (std::int64_t stride = 1; stride <= context; ++stride) {
        const TextWindows windows = cut_windows(numbers(n), std::nullopt, {recipe::Windows::Stride, context, stride, 0});
        std::vector<int> scored(static_cast<std::size_t>(n), 0);
        for (const text::Sample& sample : windows.samples) {
          ASSERT_LE(static_cast<std::int64_t>(sample.ids.size()), context + 1);  // the last is only predicted
          ASSERT_EQ(sample.ids[0], (sample.row - 1) * stride);
          ASSERT_EQ(sample.labelled[0], 0);
          for (std::size_t i = 0; i < sample.ids.size(); ++i) {
            ASSERT_EQ(sample.ids[i], sample.ids[0] + static_cast<std::int32_t>(i));
            if (sample.labelled[i] == 0) continue;
            ++scored[static_cast<std::size_t>(sample.ids[i])];
            ASSERT_TRUE(sample.row == 1 || static_cast<std::int64_t>(i) >= context - stride);
          }
        }
        for (std::int32_t t = 0; t < n; ++t)
          ASSERT_EQ(scored[static_cast<std::size_t>(t)], t == 0 ? 0 : 1) << n << " " << context << " " << stride << " " << t;
        ASSERT_EQ(windows.scored_tokens, n - 1);
        ASSERT_EQ(windows.count, static_cast<std::int64_t>(windows.samples.size()));
      }
}

TEST(StrideWindows, BosStandsBeforeTheTextSoThatAllOfItIsScored) {
  const TextWindows windows = cut_windows(numbers(10), 99, {recipe::Windows::Stride, 4, 0, 0});
  EXPECT_EQ(windows.stride, 2);
  EXPECT_EQ(windows.scored_tokens, 10);
  EXPECT_EQ(windows.samples[0].ids, (std::vector<std::int32_t>{99, 0, 1, 2, 3}));
  EXPECT_EQ(windows.samples[1].ids, (std::vector<std::int32_t>{1, 2, 3, 4, 5}));
  EXPECT_EQ(windows.samples[1].labelled, (std::vector<std::uint8_t>{0, 0, 0, 1, 1}));
  EXPECT_NE(windows.how().find("BOS before the text"), std::string::npos) << windows.how();
}

TEST(StrideWindows, MayStopEarly) {
  const TextWindows windows = cut_windows(numbers(100), std::nullopt, {recipe::Windows::Stride, 10, 5, 3});
  EXPECT_EQ(windows.count, 3);
  EXPECT_EQ(windows.scored_tokens, 20);
}

TEST(LlamaWindows, MatchTheirDefinition) {
  for (const bool bos : {false, true})
    for (const std::int64_t context : {3, 8, 9, 32}) {
      const std::vector<std::int32_t> ids = numbers(100);
      const std::optional<std::int32_t> bos_id = bos ? std::optional<std::int32_t>(777) : std::nullopt;
      const TextWindows windows = cut_windows(ids, bos_id, {recipe::Windows::LlamaPerplexity, context, 0, 0});
      std::vector<std::int32_t> stream = ids;
      if (bos) stream.insert(stream.begin(), 777);
      const std::int64_t chunks = static_cast<std::int64_t>(stream.size()) / context;
      ASSERT_EQ(windows.count, chunks);
      const std::int64_t first = context / 2;
      for (std::int64_t c = 0; c < chunks; ++c) {
        const text::Sample& sample = windows.samples[static_cast<std::size_t>(c)];
        ASSERT_EQ(static_cast<std::int64_t>(sample.ids.size()), context);
        for (std::int64_t i = 0; i < context; ++i) {
          const std::int32_t token = stream[static_cast<std::size_t>(c * context + i)];
          ASSERT_EQ(sample.ids[static_cast<std::size_t>(i)], bos && i == 0 ? 777 : token);
          // Rows first … context − 2 are looked at; row j predicts token j + 1.
          ASSERT_EQ(sample.labelled[static_cast<std::size_t>(i)] != 0, i - 1 >= first);
        }
      }
      EXPECT_EQ(windows.scored_tokens, chunks * (context - 1 - first));
    }
}

TEST(Windows, RefuseWhatCannotBe) {
  const auto cut = [](std::int32_t n, WindowOptions options) { return cut_windows(numbers(n), std::nullopt, options); };
  EXPECT_THROW(cut(100, {recipe::Windows::Stride, 1, 0, 0}), BadRecipe);
  EXPECT_THROW(cut(100, {recipe::Windows::Stride, 8, 9, 0}), BadRecipe);
  EXPECT_THROW(cut(100, {recipe::Windows::Stride, 8, -1, 0}), BadRecipe);
  EXPECT_THROW(cut(100, {recipe::Windows::LlamaPerplexity, 2, 0, 0}), BadRecipe);
  EXPECT_THROW(cut(1, {recipe::Windows::Stride, 8, 0, 0}), BadData);
  EXPECT_THROW(cut(7, {recipe::Windows::LlamaPerplexity, 8, 0, 0}), BadData);
}

TEST(Perplexity, IsTheExponentialOfTheMean) {
  const Estimate ppl = perplexity_of({std::log(8.0), std::log(4.0), std::log(16.0)});
  EXPECT_NEAR(ppl.value, 8.0, 1e-12);
  EXPECT_NEAR(ppl.low, 4.0, 1e-12);
  EXPECT_NEAR(ppl.high, 16.0, 1e-12);
}

}  // namespace
}  // namespace temper::eval
