// Token ids against HF tokenizers: 1 MiB of mixed text and a small tokenizer per family
// (tools/oracles/make_tokenizer_golden.py).
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "text/tokenizer.h"

namespace temper::text {
namespace {

using Json = nlohmann::json;
const std::filesystem::path kData = std::filesystem::path(TEMPER_TEST_DATA) / "tokenizer";

std::string read(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

const Json& golden() {
  static const Json parsed = Json::parse(read(kData / "golden.json"));
  return parsed;
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

Tokenizer load(const std::string& name) {
  return Tokenizer::from_hf_texts({.tokenizer_json = read(kData / (name + ".json"))});
}

class HfTokenizers : public ::testing::TestWithParam<std::string> {};

TEST_P(HfTokenizers, GiveTheSameIds) {
  ASSERT_EQ(text_of_one_mib().size(), golden().at("text_bytes").get<std::size_t>());
  const Json& expected = golden().at("tokenizers").at(GetParam());
  const Tokenizer tokenizer = load(GetParam());
  expect_ids(tokenizer.encode(text_of_one_mib(), true), expected.at("special"));
  expect_ids(tokenizer.encode(text_of_one_mib(), false), expected.at("plain"));
}

TEST_P(HfTokenizers, GiveTheSamePostProcessingAndText) {
  const Json& expected = golden().at("tokenizers").at(GetParam()).at("short");
  const Tokenizer tokenizer = load(GetParam());
  const auto ids = tokenizer.encode_with_special(expected.at("text").get<std::string>());
  EXPECT_EQ(ids, expected.at("ids").get<std::vector<std::int32_t>>());
  EXPECT_EQ(tokenizer.decode(ids, true), expected.at("decoded").get<std::string>());
}

TEST(TokenizerDecode, GivesTheTextBack) {
  std::string text = text_of_one_mib();
  std::erase(text, '<');  // so that no added token takes white space along
  for (const std::string name : {"gpt2", "smollm", "llama3", "gpt4o", "deepseek3", "falcon", "merged"}) {
    const Tokenizer tokenizer = load(name);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text, true), false), text) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, HfTokenizers,
                         ::testing::Values("gpt2", "prefix_space", "smollm", "llama3", "qwen2", "gpt4o", "cl100k",
                                           "deepseek3", "falcon", "merged"),
                         [](const auto& family) { return family.param; });

}  // namespace
}  // namespace temper::text
