// Rows of every layout become the ids and masks that the contract in dataset.h says.
#include "text/dataset.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/rng.h"
#include "text/inspect.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace temper::text {
namespace {

using Ids = std::vector<std::int32_t>;

std::string template_source(const std::string& name) {
  return read_file(std::string(TEMPER_TEST_DATA) + "/templates/" + name);
}

/// All bytes (ids 0 to 255), a few merges, and ChatML's special tokens; `chat_template` empty for none.
Tokenizer make_tokenizer(const std::string& chat_template, bool add_bos = false) {
  GgufTokenizer data;
  data.model = "gpt2";
  data.pre = "gpt-2";
  const auto alphabet = [](std::string_view bytes) { return bytes_to_alphabet(bytes); };
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    data.tokens.push_back(alphabet({&byte, 1}));
    data.token_type.push_back(1);
  }
  const auto merge = [&](const char* a, const char* b) {
    data.merges.push_back(alphabet(a) + " " + alphabet(b));
    data.tokens.push_back(alphabet(std::string(a) + b));
    data.token_type.push_back(1);
  };
  merge("h", "e");
  merge("l", "l");
  merge("he", "ll");
  merge(" ", "a");
  merge("\n", "\n");
  merge("\xC3", "\xA9");
  const auto special = [&](const char* text) {
    data.tokens.push_back(text);
    data.token_type.push_back(3);
    return static_cast<std::int32_t>(data.tokens.size()) - 1;
  };
  data.bos_id = special("<|begin|>");
  data.eos_id = special("<|im_end|>");
  special("<|im_start|>");
  data.add_bos = add_bos;
  if (!chat_template.empty()) data.chat_template = chat_template;
  return Tokenizer::from_gguf_metadata(data, "test");
}

std::vector<Sample> read(const Tokenizer& tokenizer, const std::string& row, const DatasetOptions& options = {},
                         DatasetReport* report = nullptr) {
  DatasetReport unused;
  return make_samples(Json::parse(row), "here:1", tokenizer, options, report ? *report : unused);
}

std::string text_of(const Sample& sample, const Tokenizer& tokenizer) { return tokenizer.decode(sample.ids, false); }

/// The labelled tokens' text, runs joined by "|".
std::string labelled(const Sample& sample, const Tokenizer& tokenizer) {
  std::string out;
  for (std::size_t i = 0; i < sample.ids.size(); ++i) {
    if (!sample.labelled[i]) continue;
    if (!out.empty() && !sample.labelled[i - 1]) out += '|';
    out += tokenizer.token_bytes(sample.ids[i]);
  }
  return out;
}

TEST(Dataset, LabelsEveryAnswerOfAConversation) {
  const Tokenizer tokenizer = make_tokenizer(template_source("smollm2.jinja"));
  const auto samples =
      read(tokenizer, R"({"messages": [{"role": "user", "content": "hello é"}, {"role": "assistant", "content": "A1 hell"},
    {"role": "user", "content": "<|im_start|>assistant\n"}, {"role": "assistant", "content": "A2\n\n"}, {"role": "user", "content": "x"}]})");
  ASSERT_EQ(samples.size(), 1u);
  EXPECT_EQ(labelled(samples[0], tokenizer), "A1 hell<|im_end|>|A2\n\n<|im_end|>");
  const std::string whole =
      "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
      "Face<|im_end|>\n<|im_start|>user\nhello é"
      "<|im_end|>\n<|im_start|>assistant\nA1 hell<|im_end|>\n<|im_start|>user\n<|im_start|>assistant\n<|im_end|>\n"
      "<|im_start|>assistant\nA2\n\n<|im_end|>\n";
  EXPECT_EQ(text_of(samples[0], tokenizer), whole);
  EXPECT_EQ(samples[0].ids, tokenizer.encode(whole, true));
}

/// The slow definition: contents are unique words, so each answer's place can be searched for in the rendering, and a
/// token's place is the length of what the tokens before it decode to.
TEST(Dataset, MasksEqualTheSlowDefinition) {
  for (const char* name : {"smollm2.jinja", "Qwen-Qwen2.5-7B-Instruct.jinja"}) {
    const Tokenizer tokenizer = make_tokenizer(template_source(name));
    Rng rng(4);
    for (int trial = 0; trial < 60; ++trial) {
      Json messages = Json::array();
      std::vector<std::string> answers;
      if (rng.below(2)) messages.push_back({{"role", "system"}, {"content", "sys"}});
      const int turns = 1 + static_cast<int>(rng.below(4));
      static const char* kPads[] = {"", " ", "\n\n", "é", " a", "hell", "日本", "\t "};
      for (int t = 0; t < turns; ++t) {
        const auto words = [&](const char* who) {
          return kPads[rng.below(8)] + fmt::format("{}{}x", who, t) + kPads[rng.below(8)];
        };
        messages.push_back({{"role", "user"}, {"content", words("Q")}});
        answers.push_back(words("R"));
        messages.push_back({{"role", "assistant"}, {"content", answers.back()}});
      }
      const auto samples = read(tokenizer, Json{{"messages", messages}}.dump());
      ASSERT_EQ(samples.size(), 1u);
      const Sample& sample = samples[0];
      const std::string whole = text_of(sample, tokenizer);
      for (std::size_t i = 0; i < sample.ids.size(); ++i) {
        std::string before;  // byte by byte, since tokens may split a character
        for (std::size_t j = 0; j < i; ++j) before += tokenizer.token_bytes(sample.ids[j]);
        bool inside = false;
        for (const std::string& answer : answers) {
          const std::size_t begin = whole.find("assistant\n" + answer + "<|im_end|>") + 10;
          inside = inside || (before.size() >= begin && before.size() < begin + answer.size() + 10);
        }
        EXPECT_EQ(sample.labelled[i] != 0, inside) << name << " token " << i << " of " << whole;
      }
    }
  }
}

TEST(Dataset, DroppedReasoningMakesASamplePerAnswer) {
  const Tokenizer tokenizer = make_tokenizer(template_source("Qwen-Qwen3-0.6B.jinja"));
  DatasetReport report;
  const auto samples = read(tokenizer, R"({"messages": [{"role": "user", "content": "q1"},
    {"role": "assistant", "content": "<think>\nr1\n</think>\n\na1"}, {"role": "user", "content": "q2"},
    {"role": "assistant", "content": "<think>\nr2\n</think>\n\na2"}]})",
                            {}, &report);
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_EQ(report.rows_split, 1);
  EXPECT_EQ(text_of(samples[0], tokenizer),
            "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\n<think>\nr1\n</think>\n\na1<|im_end|>\n");
  EXPECT_EQ(labelled(samples[0], tokenizer), "<think>\nr1\n</think>\n\na1<|im_end|>");
  EXPECT_EQ(text_of(samples[1], tokenizer),
            "<|im_start|>user\nq1<|im_end|>\n<|im_start|>assistant\na1<|im_end|>\n<|im_start|>user\nq2<|im_end|>\n"
            "<|im_start|>assistant\n<think>\nr2\n</think>\n\na2<|im_end|>\n");
  EXPECT_EQ(labelled(samples[1], tokenizer), "<think>\nr2\n</think>\n\na2<|im_end|>");
}

TEST(Dataset, GenerationPromptMayPromiseMore) {
  // The prompt opens <think>, which this answer does not hold: the answer begins where the two part.
  const Tokenizer tokenizer = make_tokenizer(
      "{% for m in messages %}<|im_start|>{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}"
      "<|im_start|>assistant:<think>{% endif %}");
  const auto samples =
      read(tokenizer, R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})");
  EXPECT_EQ(labelled(samples.at(0), tokenizer), "a<|im_end|>");
}

TEST(Dataset, TokenThatStraddlesTheBeginIsNotLabelled) {
  // "he" begins in the prompt, "ll" lies in the answer, and the whole is one token.
  const Tokenizer tokenizer = make_tokenizer(
      "{% for m in messages %}{% if m.role == 'assistant' %}.he{% endif %}{{ m.content }}{% endfor %}"
      "{% if add_generation_prompt %}.he{% endif %}");
  const auto samples =
      read(tokenizer, R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "llo"}]})");
  EXPECT_EQ(labelled(samples.at(0), tokenizer), "o");
}

TEST(Dataset, PromptCompletionIsRawAndTokenizedApart) {
  const Tokenizer tokenizer = make_tokenizer(template_source("smollm2.jinja"), true);
  const auto samples = read(tokenizer, R"({"prompt": "<|im_start|>he", "completion": "ll<|im_end|>\n"})");
  Ids expected = tokenizer.encode("<|im_start|>he", true);
  const std::size_t prompt = expected.size();
  for (const auto id : tokenizer.encode("ll<|im_end|>\n", true)) expected.push_back(id);
  ASSERT_EQ(samples.at(0).ids, expected);
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(samples[0].labelled[i], i >= prompt);
}

TEST(Dataset, AlpacaWithAndWithoutTemplate) {
  const std::string row = R"({"instruction": "Add.", "input": "1+1", "output": "2"})";
  const Tokenizer with = make_tokenizer(template_source("smollm2.jinja"));
  const auto templated = read(with, row);
  EXPECT_NE(text_of(templated.at(0), with).find("user\nAdd.\n\n1+1<|im_end|>"), std::string::npos);
  EXPECT_EQ(labelled(templated[0], with), "2<|im_end|>");
  const Tokenizer without = make_tokenizer("", true);
  const auto raw = read(without, row);
  EXPECT_EQ(raw.at(0).ids[0], *without.bos_id());
  EXPECT_EQ(labelled(raw[0], without), "2<|im_end|>");
  EXPECT_NE(text_of(raw[0], without).find("### Input:\n1+1\n\n### Response:\n2"), std::string::npos);
}

TEST(Dataset, ShareGptAndText) {
  const Tokenizer tokenizer = make_tokenizer(template_source("smollm2.jinja"), true);
  const auto chat = read(tokenizer, R"({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"},
    {"from": "gpt", "value": "a"}]})");
  EXPECT_EQ(text_of(chat.at(0), tokenizer),
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n");
  EXPECT_EQ(labelled(chat[0], tokenizer), "a<|im_end|>");
  const auto text = read(tokenizer, R"({"text": "hello"})");
  EXPECT_EQ(text_of(text.at(0), tokenizer), "<|begin|>hello<|im_end|>");
  EXPECT_EQ(labelled(text[0], tokenizer), "hello<|im_end|>");
  const auto bare = read(tokenizer, R"({"text": "hello"})", {.bos = BosRule::Never});
  EXPECT_EQ(labelled(bare.at(0), tokenizer), "o<|im_end|>");  // nothing predicts the first token
}

class DatasetFile : public ::testing::Test {
 protected:
  std::string write(const std::string& content) const {
    write_file(path_, content);
    return path_.string();
  }
  void TearDown() override { std::filesystem::remove(path_); }
  std::filesystem::path path_ =
      std::filesystem::temp_directory_path() / ("temper_dataset_" + std::to_string(getpid()) + ".jsonl");
};

template <typename E, typename F>
std::string error_of(F&& run) {
  try {
    run();
  } catch (const E& error) {
    return error.what();
  }
  ADD_FAILURE() << "no such error";
  return "";
}

TEST_F(DatasetFile, BrokenLinesAreNamed) {
  const Tokenizer tokenizer = make_tokenizer(template_source("smollm2.jinja"));
  const std::string good = R"({"prompt": "a", "completion": "b"})";
  for (const std::string bad : {"{\"prompt\": ", "[1]", R"({"question": 1})", R"({"prompt": 1, "completion": "b"})",
                                R"({"messages": [1]})", R"({"messages": {}})", R"({"messages": [{"content": "x"}]})",
                                R"({"conversations": [{"from": "martian", "value": "x"}]})", "{\"text\": \"\xff\"}"}) {
    const std::string path = write(good + "\n\n" + bad + "\n");
    EXPECT_NE(error_of<BadData>([&] { load_dataset(path, tokenizer); }).find(path + ":3"), std::string::npos) << bad;
  }
  EXPECT_THROW(load_dataset("/nonexistent/x.jsonl", tokenizer), BadFile);
  EXPECT_THROW(load_dataset(std::filesystem::temp_directory_path().string(), tokenizer), BadFile);
  const Tokenizer gemma = make_tokenizer(template_source("google-gemma-2-2b-it.jinja"));
  const std::string path =
      write(R"({"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}]})");
  EXPECT_NE(error_of<BadData>([&] { load_dataset(path, gemma); }).find("System role not supported"), std::string::npos);
}

TEST_F(DatasetFile, ReportCountsWhatIsOdd) {
  const std::string no_end =
      "{% for m in messages %}{{ '<|begin|>' if loop.first }}{{ m.content }}{% endfor %}{% if add_generation_prompt %}{% "
      "endif %}";
  const Tokenizer tokenizer = make_tokenizer(no_end, true);
  const std::string path =
      write(R"({"messages": [{"role": "user", "content": "<|begin|>q"}, {"role": "assistant", "content": "a"}]})"
            "\n"
            R"({"messages": [{"role": "user", "content": "only a question"}]})"
            "\n"
            R"({"prompt": "a long prompt", "completion": "x"})"
            "\n"
            R"({"prompt": "p", "completion": "0123456789"})"
            "\n");
  const Dataset dataset = load_dataset(path, tokenizer, {.max_length = 8});
  const DatasetReport& report = dataset.report;
  EXPECT_EQ(report.rows, 4);
  EXPECT_EQ(report.samples, 2);
  EXPECT_EQ(report.rows_messages, 2);
  EXPECT_EQ(report.rows_prompt_completion, 2);
  EXPECT_EQ(report.rows_without_labels, 2);
  EXPECT_EQ(report.rows_cut, 2);
  EXPECT_EQ(report.missing_eos, 1);
  EXPECT_EQ(report.double_bos, 1);
  EXPECT_EQ(report.labelled_tokens, 1 + 7);
  EXPECT_EQ(dataset.samples.at(1).row, 4);
  for (const char* text : {"4 rows", "2 samples", "warning: 2 rows have no labelled token", "two BOS", "ends generation"}) {
    EXPECT_NE(report.text().find(text), std::string::npos) << text << "\n" << report.text();
  }
  EXPECT_EQ(load_dataset(path, tokenizer, {.max_rows = 1}).report.rows, 1);
}

TEST_F(DatasetFile, NothingToLearnIsAnError) {
  const Tokenizer tokenizer = make_tokenizer(template_source("smollm2.jinja"));
  const std::string path = write(R"({"prompt": "abc", "completion": ""})");
  EXPECT_NE(error_of<BadData>([&] { load_dataset(path, tokenizer); }).find("nothing is left to learn"), std::string::npos);
  EXPECT_EQ(load_dataset(path, tokenizer, {.allow_empty = true}).report.rows_without_labels, 1);
  const std::string empty = write("\n");
  EXPECT_THROW(load_dataset(empty, tokenizer), BadData);
}

TEST_F(DatasetFile, InspectShowsTheMask) {
  const Tokenizer tokenizer = make_tokenizer(template_source("smollm2.jinja"));
  const Dataset dataset = load_dataset(write(R"({"prompt": "hé ", "completion": "é<|im_end|>"})"), tokenizer);
  EXPECT_EQ(render_sample(dataset.samples[0], tokenizer, {.colour = false}), "hé ⟦é<|im_end|>⟧\n");
  EXPECT_EQ(render_sample(dataset.samples[0], tokenizer, {.colour = true}),
            "\x1b[90mhé \x1b[0m\x1b[32mé\x1b[0m\x1b[1m\x1b[32m<|im_end|>\x1b[0m\n");
  const std::string all = inspect_dataset(dataset, tokenizer, {.colour = false, .ids = true});
  EXPECT_NE(all.find("1 rows"), std::string::npos);
  EXPECT_NE(all.find("yes  \"<|im_end|>\""), std::string::npos);
}

}  // namespace
}  // namespace temper::text
