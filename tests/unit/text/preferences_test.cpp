// Rows of preferences: which part is the prompt, and what is labelled.
#include "text/preferences.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "temporary_folder.h"
#include "text/tokenizer.h"
#include "tiny_model.h"

namespace temper::text {
namespace {

Json turn(const char* role, const char* content) { return {{"role", role}, {"content", content}}; }

struct Preferences : ::testing::Test {
  temper::testing::TemporaryFolder folder;
  Tokenizer tokenizer = [&] {
    temper::testing::write_tiny_tokenizer(folder.path());
    return Tokenizer::load(folder.path().string());
  }();

  /// Chosen and rejected as text, labelled parts in brackets.
  std::vector<std::string> shown(const Json& row) {
    DatasetOptions options;
    options.pairs = true;
    DatasetReport report;
    std::vector<std::string> texts;
    for (const Sample& sample : make_samples(row, "rows:1", tokenizer, options, report)) {
      std::string text;
      bool inside = false;
      for (std::size_t i = 0; i < sample.ids.size(); ++i) {
        if (inside != (sample.labelled[i] != 0)) text += inside ? "]" : "[";
        inside = sample.labelled[i] != 0;
        text +=
            tokenizer.is_special(sample.ids[i]) ? tokenizer.token_text(sample.ids[i]) : tokenizer.token_bytes(sample.ids[i]);
      }
      texts.push_back(text + (inside ? "]" : ""));
    }
    EXPECT_EQ(report.rows, 1);
    return texts;
  }
};

TEST_F(Preferences, TextWithAPrompt) {
  const std::vector<std::string> expected = {"a sum:[ 12<|end|>]", "a sum:[ 13<|end|>]"};
  EXPECT_EQ(shown({{"prompt", "a sum:"}, {"chosen", " 12"}, {"rejected", " 13"}}), expected);
  // As TRL's extract_prompt: up to the space before the first difference.
  EXPECT_EQ(shown({{"chosen", "a sum: 12"}, {"rejected", "a sum: 34"}}),
            (std::vector<std::string>{"a sum:[ 12<|end|>]", "a sum:[ 34<|end|>]"}));
}

TEST_F(Preferences, MessagesInEveryLayout) {
  const std::vector<std::string> expected = {"<|user|>two<|end|><|assistant|>[yes<|end|>]",
                                             "<|user|>two<|end|><|assistant|>[no<|end|>]"};
  const Json user = turn("user", "two"), yes = turn("assistant", "yes"), no = turn("assistant", "no");
  EXPECT_EQ(shown({{"prompt", Json::array({user})}, {"chosen", Json::array({yes})}, {"rejected", Json::array({no})}}),
            expected);
  EXPECT_EQ(shown({{"chosen", Json::array({user, yes})}, {"rejected", Json::array({user, no})}}), expected);
  EXPECT_EQ(shown({{"prompt", "two"}, {"chosen", Json::array({user, yes})}, {"rejected", Json::array({user, no})}}),
            expected);
  EXPECT_EQ(shown({{"prompt", "two"}, {"chosen", Json::array({yes})}, {"rejected", Json::array({no})}}), expected);
}

TEST_F(Preferences, EarlierAnswersAreNotLabelled) {
  const Json prompt = Json::array({turn("user", "a"), turn("assistant", "b"), turn("user", "c")});
  EXPECT_EQ(shown({{"prompt", prompt},
                   {"chosen", Json::array({turn("assistant", "d")})},
                   {"rejected", Json::array({turn("assistant", "e")})}}),
            (std::vector<std::string>{"<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|>[d<|end|>]",
                                      "<|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|>[e<|end|>]"}));
}

TEST_F(Preferences, WhatIsNoPreferenceIsRefused) {
  const Json yes = Json::array({turn("assistant", "yes")}), asks = Json::array({turn("user", "yes")});
  for (const Json& row :
       {Json{{"prompt", "a"}, {"chosen", "b"}}, Json{{"prompt", "a"}, {"chosen", "b"}, {"rejected", "b"}},
        Json{{"prompt", "a"}, {"chosen", "b"}, {"rejected", yes}}, Json{{"chosen", yes}, {"rejected", Json::array()}},
        Json{{"chosen", asks}, {"rejected", yes}}, Json{{"prompt", 3}, {"chosen", "b"}, {"rejected", "c"}},
        Json{{"prompt", 3}, {"chosen", yes}, {"rejected", Json::array({turn("assistant", "no")})}}, Json("text")})
    EXPECT_THROW(split_preference(row, ""), BadData) << row.dump();
}

TEST(KeepLastLabels, LeavesTheLastRuns) {
  Sample sample;
  sample.labelled = {0, 1, 1, 0, 1, 0, 0, 1, 1};
  keep_last_labels(sample, 2);
  EXPECT_EQ(sample.labelled, (std::vector<std::uint8_t>{0, 0, 0, 0, 1, 0, 0, 1, 1}));
  keep_last_labels(sample, 1);
  EXPECT_EQ(sample.labelled, (std::vector<std::uint8_t>{0, 0, 0, 0, 0, 0, 0, 1, 1}));
}

}  // namespace
}  // namespace temper::text
