// Generation with a cache against whole forward passes; conversations; full contexts.
#include "eval/generate.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "eval/score.h"
#include "ops/cpu/cpu_backend.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::eval {
namespace {

class Generating : public ::testing::Test {
 protected:
  Arena arena_{std::size_t{1} << 32};
  ExecContext ctx_{&ops::cpu_backend(), &arena_, DType::F32};
  temper::testing::TemporaryFolder folder_;
  std::unique_ptr<LoadedModel> model_ =
      LoadedModel::open(ctx_, temper::testing::make_tiny_model("llama_untied", folder_ / "base"));
  GenerationOptions greedy_{{0.0, 0, 1.0}, 0, 12};

  /// The likeliest next id after `ids`, by a whole forward pass.
  std::int32_t next(const std::vector<std::int32_t>& ids) {
    const text::Sample sample{ids, std::vector<std::uint8_t>(ids.size(), 0), 1};
    const ModelBatch batch(text::batch_of(std::span(&sample, 1)));
    const std::int32_t last = static_cast<std::int32_t>(ids.size()) - 1;
    std::int32_t best = -1;
    const std::int32_t named = std::min(model_->tokenizer().vocab_size(), 80);
    model_->transformer().logits(ctx_, batch.view(), std::span(&last, 1), [&](std::size_t, const TensorView& logits) {
      const auto row = logits.span<float>().first(static_cast<std::size_t>(named));
      best = static_cast<std::int32_t>(std::ranges::max_element(row) - row.begin());
    });
    return best;
  }
};

TEST_F(Generating, GreedyIsWhatWholePassesSay) {
  Generator generator(ctx_, *model_);
  EXPECT_EQ(generator.context(), 64);
  std::vector<std::int32_t> ids = model_->tokenizer().encode("the inn is", true);
  std::string streamed;
  const Generation result = generator.generate(ids, greedy_, [&](std::string_view piece) { streamed += piece; });
  EXPECT_EQ(result.prompt_tokens, static_cast<std::int64_t>(ids.size()));
  ASSERT_FALSE(result.ids.empty());
  for (const std::int32_t id : result.ids) {
    ASSERT_EQ(id, next(ids));
    ids.push_back(id);
  }
  EXPECT_EQ(result.stop == StopReason::EndOfText, model_->tokenizer().is_eog(next(ids)));
  EXPECT_EQ(streamed, result.text);
  EXPECT_EQ(result.text, model_->tokenizer().decode(result.ids, true));
  // The cache now holds this sequence; asking again, or for another with the same beginning, must not show.
  const std::vector<std::int32_t> prompt = model_->tokenizer().encode("the inn is", true);
  EXPECT_EQ(generator.generate(prompt, greedy_).ids, result.ids);
  const std::vector<std::int32_t> other = model_->tokenizer().encode("the inn was", true);
  EXPECT_EQ(generator.generate(other, greedy_).ids, Generator(ctx_, *model_).generate(other, greedy_).ids);
}

TEST_F(Generating, SeedsDecide) {
  Generator generator(ctx_, *model_);
  const std::vector<std::int32_t> prompt = model_->tokenizer().encode("the", true);
  const auto ids = [&](std::uint64_t seed) { return generator.generate(prompt, {{1.0, 0, 1.0}, seed, 20}).ids; };
  EXPECT_EQ(ids(1), ids(1));
  EXPECT_NE(ids(1), ids(2));
}

TEST_F(Generating, StopsAtTheLimits) {
  Generator generator(ctx_, *model_, 16);
  const std::vector<std::int32_t> prompt(10, 20);
  EXPECT_LE(generator.generate(prompt, {{0.0, 0, 1.0}, 0, 3}).ids.size(), 3u);
  const Generation full = generator.generate(prompt, {{0.0, 0, 1.0}, 0, 100});
  ASSERT_EQ(full.stop, StopReason::ContextFull);
  EXPECT_EQ(full.ids.size(), 7u);  // six find room in the cache, the seventh needs none
  try {
    generator.generate(std::vector<std::int32_t>(16, 20), greedy_);
    FAIL();
  } catch (const BadData& error) {
    EXPECT_NE(std::string(error.what()).find("the context is full"), std::string::npos);
  }
  EXPECT_THROW(generator.generate(std::vector<std::int32_t>{}, greedy_), BadData);
  EXPECT_THROW(Generator(ctx_, *model_, 65), BadRecipe);
}

TEST_F(Generating, ConversationsKeepWhatWasSaid) {
  ChatSession chat(ctx_, *model_, "you are a den");
  const Generation first = chat.say("who?", {{0.0, 0, 1.0}, 0, 4});
  const text::Tokenizer& tokenizer = model_->tokenizer();
  EXPECT_EQ(first.prompt_tokens,
            static_cast<std::int64_t>(
                tokenizer.encode("<|system|>you are a den<|end|><|user|>who?<|end|><|assistant|>", true).size()));
  ASSERT_EQ(chat.messages().size(), 3u);
  EXPECT_EQ(chat.messages()[2]["content"], first.text);
  const Generation second = chat.say("and?", {{0.0, 0, 1.0}, 0, 4});
  ASSERT_EQ(chat.messages().size(), 5u);
  // The second answer is what a fresh model says to the whole conversation.
  const std::string whole = "<|system|>you are a den<|end|><|user|>who?<|end|><|assistant|>" + first.text +
                            "<|end|><|user|>and?<|end|><|assistant|>";
  Generator fresh(ctx_, *model_);
  EXPECT_EQ(fresh.generate(tokenizer.encode(whole, true), {{0.0, 0, 1.0}, 0, 4}).ids, second.ids);
  EXPECT_THROW(chat.say(std::string(100, 'a'), greedy_), BadData);
  EXPECT_EQ(chat.messages().size(), 5u);
  chat.reset();
  EXPECT_EQ(chat.messages().size(), 1u);
}

TEST_F(Generating, PromptsRawOrTemplated) {
  const text::Tokenizer& tokenizer = model_->tokenizer();
  EXPECT_EQ(prompt_ids(tokenizer, "who?", "", true), tokenizer.encode("who?", true));
  EXPECT_EQ(prompt_ids(tokenizer, "who?", "", false), tokenizer.encode("<|user|>who?<|end|><|assistant|>", true));
  EXPECT_EQ(prompt_ids(tokenizer, "who?", "be", false),
            tokenizer.encode("<|system|>be<|end|><|user|>who?<|end|><|assistant|>", true));
}

}  // namespace
}  // namespace temper::eval
