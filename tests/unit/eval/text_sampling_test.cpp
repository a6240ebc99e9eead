// Text that a model writes by itself: what whole passes say, seeded, kept and read again.
#include "eval/text_sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/interrupt.h"
#include "eval/generate.h"
#include "eval/score.h"
#include "ops/cpu/cpu_backend.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::eval {
namespace {

using Ids = std::vector<std::int32_t>;

class Sampling : public ::testing::Test {
 protected:
  Arena arena_{std::size_t{1} << 32};
  ExecContext ctx_{&ops::cpu_backend(), &arena_, DType::F32};
  temper::testing::TemporaryFolder folder_;
  std::unique_ptr<LoadedModel> model_ =
      LoadedModel::open(ctx_, temper::testing::make_tiny_model("llama_untied", folder_ / "base"));

  std::vector<text::Sample> texts(std::int64_t count, const TextSampling& options, const std::string& to) {
    return sample_texts(ctx_, *model_, options, count, "tiny", folder_ / to);
  }
  std::size_t files(const std::string& of) {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder_ / of), {}));
  }
  /// Logits of every token of `ids` by a whole forward pass.
  std::vector<std::vector<float>> whole_pass(const Ids& ids) {
    const text::Sample sample{ids, std::vector<std::uint8_t>(ids.size(), 0), 1};
    const ModelBatch batch(text::batch_of(std::span(&sample, 1)));
    Ids rows;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) rows.push_back(static_cast<std::int32_t>(i));
    std::vector<std::vector<float>> all;
    model_->transformer().logits(ctx_, batch.view(), rows, [&](std::size_t, const TensorView& logits) {
      for (std::int64_t r = 0; r < logits.rows(); ++r) {
        const float* row = logits.as<float>() + r * logits.row_stride;
        all.emplace_back(row, row + logits.cols());
      }
    });
    return all;
  }
};

/// Ten sequences side by side in one cache give, position by position, the logits of each alone. Both are f32 sums of at
/// most 96 products a value through two layers, in another order: 1e-4 of the largest is far above and shows any mistake.
TEST_F(Sampling, SideBySideIsEachAlone) {
  constexpr std::int64_t kSequences = 10, kLength = 9;
  std::vector<Ids> sequences;
  for (std::int32_t s = 0; s < kSequences; ++s) {
    Ids ids;
    for (std::int32_t t = 0; t <= kLength; ++t) ids.push_back((7 * s + 5 * t + s * t) % 70);
    sequences.push_back(ids);
  }
  model::KvCache cache(model_->arch(), DType::F32, kSequences * kLength);
  std::vector<std::vector<std::vector<float>>> expected;
  for (const Ids& ids : sequences) expected.push_back(whole_pass(ids));
  for (std::int64_t at = 0; at < kLength; ++at) {
    Ids tokens;
    for (const Ids& ids : sequences) tokens.push_back(ids[static_cast<std::size_t>(at)]);
    std::size_t seen = 0;
    model_->transformer().step_side_by_side(ctx_, cache, at, tokens, [&](std::size_t first, const TensorView& logits) {
      for (std::int64_t r = 0; r < logits.rows(); ++r, ++seen) {
        const std::vector<float>& wanted = expected[first + static_cast<std::size_t>(r)][static_cast<std::size_t>(at)];
        const float largest = std::abs(*std::ranges::max_element(wanted, {}, [](float x) { return std::abs(x); }));
        for (std::size_t v = 0; v < wanted.size(); ++v)
          ASSERT_NEAR(logits.as<float>()[r * logits.row_stride + static_cast<std::int64_t>(v)], wanted[v], 1e-4f * largest)
              << "sequence " << first << " + " << r << ", token " << at << ", id " << v;
      }
    });
    EXPECT_EQ(seen, static_cast<std::size_t>(kSequences));
  }
  EXPECT_THROW(model_->transformer().step_side_by_side(ctx_, cache, kLength, Ids(kSequences, 1), {}), Unsupported);
}

TEST_F(Sampling, GreedyTextIsWhatWholePassesSay) {
  const auto samples = texts(3, {.length = 20, .batch = 10, .temperature = 0}, "greedy");
  ASSERT_EQ(samples.size(), 3u);
  for (const text::Sample& sample : samples) {
    ASSERT_EQ(sample.ids.size(), 21u);
    EXPECT_EQ(sample.labelled.front(), 0);
    EXPECT_EQ(std::ranges::count(sample.labelled, 1), 20);
    const auto logits = whole_pass(sample.ids);
    const std::size_t begin = sample.row % 2 == 0 ? user_turn_ids(model_->tokenizer()).size() : 1;
    for (std::size_t t = begin; t < sample.ids.size(); ++t) {
      const auto named = std::span(logits[t - 1]).first(static_cast<std::size_t>(model_->tokenizer().vocab_size()));
      EXPECT_EQ(sample.ids[t], std::ranges::max_element(named) - named.begin()) << "text " << sample.row << ", token " << t;
    }
  }
}

TEST_F(Sampling, BeginsAsDocumentsAndConversations) {
  const Ids turn = user_turn_ids(model_->tokenizer());
  EXPECT_EQ(turn, model_->tokenizer().encode("<|user|>", true));
  const auto samples = texts(4, {.length = 16, .batch = 2}, "begin");
  EXPECT_EQ(samples[0].ids[0], *model_->tokenizer().bos_id());
  EXPECT_EQ(samples[1].ids[0], turn[0]);
  EXPECT_EQ(samples[2].ids[0], *model_->tokenizer().bos_id());
}

TEST_F(Sampling, IsSeededKeptAndReadAgain) {
  const TextSampling options{.length = 16, .batch = 4, .temperature = 1, .seed = 3};
  const auto first = texts(6, options, "texts");
  EXPECT_EQ(files("texts"), 2u);
  std::vector<std::filesystem::file_time_type> written;
  for (const auto& file : std::filesystem::directory_iterator(folder_ / "texts"))
    written.push_back(std::filesystem::last_write_time(file));
  const auto more = texts(12, options, "texts"), anew = texts(6, options, "elsewhere");
  for (std::size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].ids, more[i].ids);
    EXPECT_EQ(first[i].ids, anew[i].ids);
  }
  EXPECT_EQ(files("texts"), 3u);
  for (const auto time : written)
    EXPECT_TRUE(std::ranges::any_of(std::filesystem::directory_iterator(folder_ / "texts"),
                                    [&](const auto& file) { return std::filesystem::last_write_time(file) == time; }));
  TextSampling other = options;
  other.seed = 4;
  EXPECT_NE(texts(6, other, "texts")[0].ids, first[0].ids);
  EXPECT_NE(first[0].ids, first[2].ids);
}

TEST_F(Sampling, RefusesFilesThatAreNone) {
  const TextSampling options{.length = 16, .batch = 4};
  texts(4, options, "texts");
  const auto path = std::filesystem::directory_iterator(folder_ / "texts")->path();
  testing::spill(path, "no tensors");
  EXPECT_THROW(texts(4, options, "texts"), BadFile);
  EXPECT_THROW(texts(4, {.length = 65}, "long"), BadRecipe);  // more than the model's positions
}

}  // namespace
}  // namespace temper::eval
