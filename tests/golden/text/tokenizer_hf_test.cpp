// Token ids against HF tokenizers and sentencepiece: 1 MiB of mixed text and a small tokenizer per family
// (tools/oracles/make_tokenizer_golden.py, make_sentencepiece_golden.py).
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "text/tokenizer.h"

namespace temper::text {
namespace {

using Json = nlohmann::json;
const std::filesystem::path kTestData = TEMPER_TEST_DATA;
const std::filesystem::path kData = kTestData / "tokenizer";

std::string read(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// `set`: a folder of tokenizers, and what the oracle says of them.
const Json& golden(const std::string& set) {
  static std::map<std::string, Json> parsed;
  Json& of_set = parsed[set];
  if (of_set.is_null()) of_set = Json::parse(read(kTestData / set / "golden.json"));
  return of_set;
}

/// The generator's `expand`: fragments and joiners picked by SplitMix64.
std::string mixed_text(std::size_t size) {
  const Json data = Json::parse(read(kData / "fragments.json"));
  const auto fragments = data.at("fragments").get<std::vector<std::string>>();
  const auto joiners = data.at("joiners").get<std::vector<std::string>>();
  std::uint64_t state = 0x7E3A9;
  const auto pick = [&state](const std::vector<std::string>& list) -> const std::string& {
    state += 0x9E3779B97F4A7C15ULL;
    std::uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return list[(z ^ (z >> 31)) % list.size()];
  };
  std::string text;
  while (text.size() < size) text.append(pick(fragments)).append(pick(joiners));
  return text;
}

const std::string& text_of_one_mib() {
  static const std::string text = mixed_text(std::size_t{1} << 20);
  return text;
}

std::string fnv1a(const std::vector<std::int32_t>& ids) {
  std::uint64_t value = 0xCBF29CE484222325ULL;
  for (const std::int32_t id : ids) {
    for (int byte = 0; byte < 4; ++byte) {
      value = (value ^ ((static_cast<std::uint32_t>(id) >> (8 * byte)) & 0xFF)) * 0x100000001B3ULL;
    }
  }
  char hex[17];
  std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(value));
  return hex;
}

void expect_ids(const std::vector<std::int32_t>& ids, const Json& expected) {
  EXPECT_EQ(ids.size(), expected.at("count").get<std::size_t>());
  EXPECT_EQ(fnv1a(ids), expected.at("fnv1a").get<std::string>());
  const auto step = expected.at("step").get<std::size_t>();
  const auto samples = expected.at("samples").get<std::vector<std::int32_t>>();
  for (std::size_t i = 0; i < samples.size() && i * step < ids.size(); ++i) {
    ASSERT_EQ(ids[i * step], samples[i]) << "the first sample that differs is token " << i * step;
  }
}

Tokenizer load(const std::string& set, const std::string& name) {
  return Tokenizer::from_hf_texts({.tokenizer_json = read(kTestData / set / (name + ".json"))});
}

struct Family {
  std::string set, name;
};

class HfTokenizers : public ::testing::TestWithParam<Family> {
 protected:
  const Json& expected() const { return golden(GetParam().set).at("tokenizers").at(GetParam().name); }
  Tokenizer tokenizer() const { return load(GetParam().set, GetParam().name); }
};

TEST_P(HfTokenizers, GiveTheSameIds) {
  ASSERT_EQ(text_of_one_mib().size(), golden(GetParam().set).at("text_bytes").get<std::size_t>());
  expect_ids(tokenizer().encode(text_of_one_mib(), true), expected().at("special"));
  expect_ids(tokenizer().encode(text_of_one_mib(), false), expected().at("plain"));
}

TEST_P(HfTokenizers, GiveTheSamePostProcessingAndText) {
  const Json& answer = expected().at("short");
  const auto ids = tokenizer().encode_with_special(answer.at("text").get<std::string>());
  EXPECT_EQ(ids, answer.at("ids").get<std::vector<std::int32_t>>());
  EXPECT_EQ(tokenizer().decode(ids, true), answer.at("decoded").get<std::string>());
}

TEST(TokenizerDecode, GivesTheTextBack) {
  std::string text = text_of_one_mib();
  std::erase(text, '<');  // so that no added token takes white space along
  for (const std::string name : {"gpt2", "smollm", "llama3", "gpt4o", "deepseek3", "falcon", "merged"}) {
    const Tokenizer tokenizer = load("tokenizer", name);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, true), false), text) << name;
  }
}

TEST(TokenizerDecode, GivesTheTextOfSentencePieceBack) {
  std::string text = text_of_one_mib();
  std::erase(text, '<');                          // so that no added token takes white space along
  text = replace_all(text, "\xE2\x96\x81", "_");  // which would come back as a space
  text = replace_all(text, "word", "wort");       // an added token that is sought with a space before it
  for (const std::string name : {"llama", "gemma"}) {
    const Tokenizer tokenizer = load("sentencepiece", name);
    for (const TextPart part : {TextPart::kWhole, TextPart::kContinuation})
      EXPECT_TRUE(tokenizer.decode(tokenizer.encode(text, true, part), false, part) == text) << name;
  }
}

std::vector<Family> families() {
  std::vector<Family> all;
  for (const char* name :
       {"gpt2", "prefix_space", "smollm", "llama3", "qwen2", "gpt4o", "cl100k", "deepseek3", "falcon", "merged"})
    all.push_back({"tokenizer", name});
  for (const char* name : {"llama", "gemma", "plain_bpe", "t5", "unigram_bytes"}) all.push_back({"sentencepiece", name});
  return all;
}

class SentencePiece : public ::testing::TestWithParam<std::string> {};

TEST_P(SentencePiece, GivesTheSameIds) {
  std::string text = text_of_one_mib();
  std::erase(text, '\0');                         // where its strings end
  text = replace_all(text, "\xE2\x96\x81", "_");  // which is a space to it
  const Tokenizer tokenizer =
      Tokenizer::from_hf_texts({.tokenizer_model = read(kTestData / "sentencepiece" / (GetParam() + ".model"))});
  const Json& expected = golden("sentencepiece").at("tokenizers").at(GetParam());
  expect_ids(tokenizer.encode(text, false), expected.at("sentencepiece"));
  // Written for HF tokenizers and read again, it is the same tokenizer, but for the way in which a map's rules are sought.
  if (GetParam() == "t5" || GetParam() == "plain_bpe") return;
  const Tokenizer again = Tokenizer::from_hf_texts({.tokenizer_json = tokenizer.to_hf_json()});
  expect_ids(again.encode(text, false), expected.at("sentencepiece"));
}

// Not unigram_bytes: sentencepiece sums scores in single precision, so that of segmentations of a run of one character,
// equally probable, it takes another than HF tokenizers and llama.cpp.
INSTANTIATE_TEST_SUITE_P(Models, SentencePiece, ::testing::Values("llama", "gemma", "plain_bpe", "t5"),
                         [](const auto& name) { return name.param; });

INSTANTIATE_TEST_SUITE_P(Families, HfTokenizers, ::testing::ValuesIn(families()),
                         [](const auto& family) { return family.param.set + "_" + family.param.name; });

}  // namespace
}  // namespace temper::text
