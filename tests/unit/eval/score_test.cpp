// Scores and comparisons on tiny random models against double-precision definitions.
#include "eval/score.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/rng.h"
#include "eval/compare.h"
#include "ops/cpu/cpu_backend.h"

namespace temper::eval {
namespace {

/// A model of tests/data/hf, in f32.
struct Tiny {
  explicit Tiny(const std::string& name)
      : reader(model::CheckpointReader::open(std::string(TEMPER_TEST_DATA) + "/hf/" + name)),
        weights(reader, DType::F32),
        transformer(reader.arch(), weights) {}
  model::CheckpointReader reader;
  model::BaseWeights weights;
  model::Transformer transformer;
};

class Scores : public ::testing::Test {
 protected:
  Arena arena_{std::size_t{1} << 32};
  ExecContext ctx_{&ops::cpu_backend(), &arena_, DType::F32};
  Tiny model_{"llama_untied"}, reference_{"llama31_tied"};

  /// Random documents of 2 to 40 tokens, about half of them labelled; every third row gives two samples.
  static std::vector<text::Sample> samples(std::size_t n) {
    std::vector<text::Sample> out;
    Rng rng(21);
    for (std::size_t i = 0; i < n; ++i) {
      text::Sample sample;
      sample.row = static_cast<std::int64_t>(out.empty() ? 1 : out.back().row + (i % 3 == 2 ? 0 : 1));
      const std::uint32_t length = 2 + rng.below(39);
      for (std::uint32_t t = 0; t < length; ++t) {
        sample.ids.push_back(static_cast<std::int32_t>(rng.below(80)));
        sample.labelled.push_back(t == length - 1 || (t > 0 && rng.below(2) == 0) ? 1 : 0);
      }
      out.push_back(std::move(sample));
    }
    return out;
  }

  /// log-softmax in long double of every labelled row of one sample, alone in its batch.
  std::vector<std::vector<double>> log_probabilities(Tiny& tiny, const text::Sample& sample) {
    const ModelBatch batch(text::batch_of(std::span(&sample, 1)));
    std::vector<std::int32_t> rows;
    for (std::size_t t = 1; t < sample.ids.size(); ++t)
      if (sample.labelled[t] != 0) rows.push_back(static_cast<std::int32_t>(t) - 1);
    std::vector<std::vector<double>> out;
    tiny.transformer.logits(ctx_, batch.view(), rows, [&](std::size_t, const TensorView& logits) {
      const auto values = logits.span<float>();
      for (std::int64_t r = 0; r < logits.rows(); ++r) {
        const auto row = values.subspan(static_cast<std::size_t>(r) * 80, 80);
        long double sum = 0.0L;
        for (const float x : row) sum += std::exp(static_cast<long double>(x));
        out.emplace_back();
        for (const float x : row) out.back().push_back(static_cast<double>(static_cast<long double>(x) - std::log(sum)));
      }
    });
    return out;
  }
};

TEST_F(Scores, SideBySideAsAlone) {
  const std::vector<text::Sample> documents = samples(25);
  ScoreOptions together, alone;
  alone.tokens_per_pass = 1;
  const std::vector<RowScore> a = score_samples(ctx_, model_.transformer, documents, together);
  const std::vector<RowScore> b = score_samples(ctx_, model_.transformer, documents, alone);
  ASSERT_EQ(a.size(), documents.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    double expected = 0.0;
    std::int64_t tokens = 0;
    const auto log_p = log_probabilities(model_, documents[i]);
    for (std::size_t t = 1; t < documents[i].ids.size(); ++t)
      if (documents[i].labelled[t] != 0)
        expected -= log_p[static_cast<std::size_t>(tokens++)][static_cast<std::size_t>(documents[i].ids[t])];
    EXPECT_EQ(a[i].row, documents[i].row);
    EXPECT_EQ(a[i].tokens, tokens);
    // NLLs of about 4.4 in f32, up to 39 of them; products in another order differ by some eps of the logits.
    EXPECT_NEAR(a[i].nll, expected, 2e-6 * static_cast<double>(tokens)) << "sample " << i;
    EXPECT_NEAR(b[i].nll, expected, 2e-6 * static_cast<double>(tokens)) << "sample " << i;
  }
}

TEST_F(Scores, AddUpByRow) {
  const std::vector<text::Sample> documents = samples(25);
  const std::vector<RowScore> each = score_samples(ctx_, model_.transformer, documents);
  const Score total = score(ctx_, model_.transformer, documents);
  EXPECT_EQ(static_cast<std::int64_t>(total.rows.size()), documents.back().row);
  double nll = 0.0;
  std::int64_t tokens = 0;
  for (const RowScore& s : each) nll += s.nll, tokens += s.tokens;
  EXPECT_EQ(total.tokens, tokens);
  EXPECT_NEAR(total.nll.value, nll / static_cast<double>(tokens), 1e-12);
  EXPECT_LT(total.nll.low, total.nll.value);
  EXPECT_GT(total.nll.high, total.nll.value);
}

TEST_F(Scores, RefuseWhatCannotBeScored) {
  std::vector<text::Sample> documents(1);
  documents[0] = {std::vector<std::int32_t>(10, 3), std::vector<std::uint8_t>(10, 0), 4};
  EXPECT_THROW(score(ctx_, model_.transformer, documents), BadData);  // nothing labelled
  documents[0] = {std::vector<std::int32_t>(66, 3), std::vector<std::uint8_t>(66, 1), 4};
  EXPECT_THROW(score(ctx_, model_.transformer, documents), BadData);  // 65 positions, the model has 64
  set_interrupted(true);
  EXPECT_THROW(score(ctx_, model_.transformer, samples(3)), Interrupted);
  set_interrupted(false);
}

TEST_F(Scores, ComparisonMatchesItsDefinition) {
  const std::vector<text::Sample> documents = samples(20);
  const Comparison comparison = compare(ctx_, model_.transformer, reference_.transformer, documents);
  double kld = 0.0, nll = 0.0, reference_nll = 0.0, agreed = 0.0, tokens = 0.0, largest = 0.0;
  for (const text::Sample& sample : documents) {
    const auto q = log_probabilities(model_, sample), p = log_probabilities(reference_, sample);
    std::size_t next = 0;
    for (std::size_t t = 1; t < sample.ids.size(); ++t) {
      if (sample.labelled[t] == 0) continue;
      double divergence = 0.0;
      for (std::size_t v = 0; v < 80; ++v) divergence += std::exp(p[next][v]) * (p[next][v] - q[next][v]);
      kld += divergence;
      largest = std::max(largest, divergence);
      nll -= q[next][static_cast<std::size_t>(sample.ids[t])];
      reference_nll -= p[next][static_cast<std::size_t>(sample.ids[t])];
      agreed += std::ranges::max_element(q[next]) - q[next].begin() == std::ranges::max_element(p[next]) - p[next].begin();
      ++next;
      ++tokens;
    }
  }
  EXPECT_EQ(static_cast<double>(comparison.tokens), tokens);
  EXPECT_NEAR(comparison.kld.value, kld / tokens, 1e-6 * (1.0 + kld / tokens));
  EXPECT_NEAR(comparison.max_kld, largest, 1e-5 * largest);
  EXPECT_NEAR(comparison.nll.value, nll / tokens, 2e-6);
  EXPECT_NEAR(comparison.reference_nll.value, reference_nll / tokens, 2e-6);
  EXPECT_NEAR(comparison.nll_difference.value, (nll - reference_nll) / tokens, 4e-6);
  EXPECT_EQ(comparison.top1_agreement.value, agreed / tokens);
  EXPECT_GT(comparison.kld.value, 0.0);
  EXPECT_LT(comparison.kld.low, comparison.kld.high);
}

TEST_F(Scores, AModelAgreesWithItself) {
  const Comparison comparison = compare(ctx_, model_.transformer, model_.transformer, samples(10));
  EXPECT_EQ(comparison.kld.value, 0.0);
  EXPECT_EQ(comparison.kld.high, 0.0);
  EXPECT_EQ(comparison.top1_agreement.value, 1.0);
  EXPECT_EQ(comparison.nll_difference.value, 0.0);
  EXPECT_EQ(comparison.nll.value, comparison.reference_nll.value);
}

TEST_F(Scores, FewLogitsHeldGiveTheSameFigures) {
  const std::vector<text::Sample> documents = samples(12);
  CompareOptions small;
  small.logits_bytes = 7 * 80 * sizeof(float);  // most samples need several passes
  const Comparison a = compare(ctx_, model_.transformer, reference_.transformer, documents);
  const Comparison b = compare(ctx_, model_.transformer, reference_.transformer, documents, small);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_NEAR(a.kld.value, b.kld.value, 1e-6);
  EXPECT_NEAR(a.nll.value, b.nll.value, 1e-6);
  EXPECT_EQ(a.top1_agreement.value, b.top1_agreement.value);
}

TEST_F(Scores, RecoveredNeedsTheSameRows) {
  const std::vector<text::Sample> documents = samples(12);
  const Comparison a = compare(ctx_, model_.transformer, reference_.transformer, documents);
  const Estimate nothing = recovered(a, a);
  EXPECT_EQ(nothing.value, 0.0);
  const Comparison fewer = compare(ctx_, model_.transformer, reference_.transformer, std::span(documents).first(6));
  EXPECT_THROW(recovered(a, fewer), LogicError);
}

TEST(BatchRanges, FillUpToTheLimits) {
  std::vector<text::Sample> documents(5);
  for (std::size_t i = 0; i < 5; ++i) {
    documents[i].ids.assign(10, 1);
    documents[i].labelled.assign(10, i == 2 ? 1 : 0);
  }
  using Ranges = std::vector<std::pair<std::size_t, std::size_t>>;
  EXPECT_EQ(batch_ranges(documents, 20, 100), (Ranges{{0, 2}, {2, 4}, {4, 5}}));
  EXPECT_EQ(batch_ranges(documents, 5, 100), (Ranges{{0, 1}, {1, 2}, {2, 3}, {3, 4}, {4, 5}}));
  EXPECT_EQ(batch_ranges(documents, 1000, 9), (Ranges{{0, 2}, {2, 3}, {3, 5}}));
  EXPECT_TRUE(batch_ranges({}, 10, 10).empty());
}

TEST(CompareToken, ClosedForm) {
  // Reference (1/2, 1/4, 1/4), model (1/4, 1/4, 1/2): KL = ½·ln 2 − ¼·ln 2.
  const std::vector<float> reference = {std::log(2.0f), 0.0f, 0.0f}, logits = {5.0f, 5.0f, 5.0f + std::log(2.0f)};
  const TokenComparison token = compare_token(logits, reference, 0);
  EXPECT_NEAR(token.kld, 0.25 * std::log(2.0), 1e-7);
  EXPECT_NEAR(token.nll, std::log(4.0), 1e-6);
  EXPECT_NEAR(token.reference_nll, std::log(2.0), 1e-7);
  EXPECT_FALSE(token.agreed);
  EXPECT_TRUE(compare_token(logits, logits, 0).agreed);
}

}  // namespace
}  // namespace temper::eval
