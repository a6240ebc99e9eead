// SentencePiece's tokenizers: what is read, written and refused, and the space before a text.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "text/base64.h"
#include "text/charsmap.h"
#include "text/dataset.h"
#include "text/tokenizer.h"

namespace temper::text {
namespace {

using Ids = std::vector<std::int32_t>;

const std::string kMark = "\xE2\x96\x81";  // U+2581

/// 0 <unk>, 1 <s>, 2 </s>, 3 to 258 bytes, then the pieces; <sep> (263) is found in texts beforehand.
GgufTokenizer small() {
  GgufTokenizer out;
  out.model = "llama";
  out.pre = "default";
  const auto add = [&](const std::string& text, std::int32_t type, float score) {
    out.tokens.push_back(text);
    out.token_type.push_back(type);
    out.scores.push_back(score);
  };
  add("<unk>", 2, 0);
  add("<s>", 3, 0);
  add("</s>", 3, 0);
  for (int b = 0; b < 256; ++b) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", b);
    add(text, 6, 0);
  }
  add(kMark, 1, -9);        // 259
  add("a", 1, -8);          // 260
  add("b", 1, -7);          // 261
  add(kMark + "a", 1, -2);  // 262
  add("<sep>", 4, 0);       // 263
  add("ab", 1, -1);         // 264: goes before 262
  out.unk_id = 0;
  out.bos_id = 1;
  out.eos_id = 2;
  out.add_bos = out.add_space_prefix = true;
  return out;
}

Tokenizer make(const GgufTokenizer& metadata) { return Tokenizer::from_gguf_metadata(metadata, "test.gguf"); }

TEST(SentencePieceBpe, MergesTheBestScoreFirst) {
  const Tokenizer tokenizer = make(small());
  EXPECT_EQ(tokenizer.encode("a", true), (Ids{262}));
  EXPECT_EQ(tokenizer.encode("ab", true), (Ids{259, 264}));
  EXPECT_EQ(tokenizer.encode("", true), Ids{});
  EXPECT_EQ(tokenizer.encode("a\n", true), (Ids{262, 3 + '\n'}));
  EXPECT_EQ(tokenizer.encode("\u00e9", true), (Ids{259, 3 + 0xC3, 3 + 0xA9}));
  EXPECT_EQ(tokenizer.encode_with_special("a"), (Ids{1, 262}));
  EXPECT_EQ(tokenizer.encode("<0x0A>", false).size(), 7U);  // byte tokens are not found in texts
}

TEST(SentencePieceBpe, PutsASpaceBeforeATextAndAfterAnAddedToken) {
  const Tokenizer tokenizer = make(small());
  EXPECT_EQ(tokenizer.encode("a<sep>a", true), (Ids{262, 263, 262}));
  EXPECT_EQ(tokenizer.encode("a<sep>a", true, TextPart::kContinuation), (Ids{260, 263, 262}));
  EXPECT_EQ(tokenizer.encode("a", true, TextPart::kAfterToken), (Ids{262}));
  EXPECT_EQ(tokenizer.decode(Ids{262, 259, 260}, false), "a a");
  EXPECT_EQ(tokenizer.decode(Ids{262, 259, 260}, false, TextPart::kContinuation), " a a");
  EXPECT_EQ(tokenizer.decode(Ids{1, 262}, true), "a");
  EXPECT_EQ(tokenizer.decode(Ids{1, 262}, false), "<s> a");
  GgufTokenizer bare = small();
  bare.add_space_prefix = false;
  EXPECT_EQ(make(bare).encode("a<sep> a", true), (Ids{260, 263, 262}));
  EXPECT_EQ(make(bare).decode(Ids{262}, false), " a");
}

TEST(SentencePieceBpe, StreamsWholeCharacters) {
  const Tokenizer tokenizer = make(small());
  const Ids ids = tokenizer.encode("a\u6f22b", true);
  TextStream stream(tokenizer, true, TextPart::kWhole);
  std::vector<std::string> pieces;
  for (const std::int32_t id : ids) pieces.push_back(stream.push(id));
  pieces.push_back(stream.finish());
  EXPECT_EQ(pieces, (std::vector<std::string>{"a", "", "", "\u6f22", "b", ""}));
  TextStream broken(tokenizer, true, TextPart::kContinuation);
  EXPECT_EQ(broken.push(3 + 0xE6), "");
  EXPECT_EQ(broken.finish(), "\uFFFD");
}

TEST(SentencePieceBpe, IsTheSameAfterEveryRoundTrip) {
  const Tokenizer tokenizer = make(small());
  const std::string text = "ab a<sep>b  \u6f22\n</s> aab";
  const Tokenizer hf = Tokenizer::from_hf_texts(
      {.tokenizer_json = tokenizer.to_hf_json(), .tokenizer_config_json = tokenizer.to_hf_config_json()});
  const GgufTokenizer written = hf.to_gguf();
  EXPECT_EQ(written.model, "llama");
  EXPECT_TRUE(written.add_space_prefix);
  EXPECT_TRUE(written.add_bos);
  EXPECT_EQ(written.token_type, small().token_type);
  EXPECT_EQ(tokenizer.to_gguf().scores, small().scores);
  for (const Tokenizer& other : {hf, make(written), make(tokenizer.to_gguf())}) {
    for (const bool special : {false, true}) EXPECT_EQ(other.encode(text, special), tokenizer.encode(text, special));
    EXPECT_EQ(other.decode(tokenizer.encode(text, true), false), tokenizer.decode(tokenizer.encode(text, true), false));
    EXPECT_EQ(other.encode_with_special("a"), (Ids{1, 262}));
  }
}

TEST(SentencePieceBpe, RefusesMergesThatNoScoresOrder) {
  Json json = Json::parse(make(small()).to_hf_json());
  json["model"]["merges"] = {"a b", kMark + " a"};
  EXPECT_NO_THROW(Tokenizer::from_hf_texts({.tokenizer_json = json.dump()}).to_gguf());
  json["model"]["vocab"]["aab"] = 265;
  json["model"]["vocab"]["aa"] = 266;
  json["model"]["merges"] = {"a a", "a b", "aa b", kMark + " a", "a ab"};
  const Tokenizer tokenizer = Tokenizer::from_hf_texts({.tokenizer_json = json.dump()});
  EXPECT_THROW(tokenizer.to_gguf(), Unsupported);
}

/// Ids and labels of the only sample of a row.
std::pair<Ids, std::vector<std::uint8_t>> sample(const Tokenizer& tokenizer, const char* row) {
  DatasetReport report;
  const auto samples = make_samples(Json::parse(row), "row", tokenizer, {}, report);
  return {samples.at(0).ids, samples.at(0).labelled};
}

TEST(SentencePieceRows, JoinPromptAndCompletionAsOneText) {
  const Tokenizer tokenizer = make(small());
  using Labels = std::vector<std::uint8_t>;
  EXPECT_EQ(sample(tokenizer, R"({"prompt": "a", "completion": "b"})"), std::pair(Ids{262, 261}, Labels{0, 1}));
  EXPECT_EQ(sample(tokenizer, R"({"prompt": "a<sep>", "completion": "a"})"), std::pair(Ids{262, 263, 262}, Labels{0, 0, 1}));
}

TEST(SentencePieceRows, LabelAnswersThoughTheTemplatesTextsHaveSpacesBeforeThem) {
  GgufTokenizer metadata = small();
  metadata.chat_template = "{% for m in messages %}<sep>{{ m.content }}{% endfor %}";
  const auto [ids, labels] =
      sample(make(metadata), R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})");
  EXPECT_EQ(ids, (Ids{263, 262, 263, 259, 261}));
  EXPECT_EQ(labels, (std::vector<std::uint8_t>{0, 0, 1, 1, 1}));
}

TEST(SentencePieceUnigram, TakesTheMostProbablePieces) {
  GgufTokenizer metadata;
  metadata.model = "t5";
  metadata.pre = "default";
  metadata.tokens = {"<unk>", "a", "b", "ab", "aba", kMark, "</s>"};
  metadata.token_type = {2, 1, 1, 1, 1, 1, 3};
  metadata.scores = {0, -3, -3, -4, -4.5F, -2, 0};
  metadata.unk_id = 0;
  metadata.eos_id = 6;
  metadata.add_eos = metadata.add_space_prefix = metadata.remove_extra_whitespaces = true;
  const Tokenizer tokenizer = make(metadata);
  EXPECT_EQ(tokenizer.encode("abab", true), (Ids{5, 4, 2}));  // aba + b = -7.5, ab + ab = -8
  EXPECT_EQ(tokenizer.encode("  a   b ", true), (Ids{5, 1, 5, 2}));
  EXPECT_EQ(tokenizer.encode("a??b", true), (Ids{5, 1, 0, 2}));  // one for a run of unknown characters
  EXPECT_EQ(tokenizer.encode_with_special("a"), (Ids{5, 1, 6}));
  const Tokenizer hf = Tokenizer::from_hf_texts(
      {.tokenizer_json = tokenizer.to_hf_json(), .tokenizer_config_json = tokenizer.to_hf_config_json()});
  for (const Tokenizer& other : {hf, make(hf.to_gguf()), make(tokenizer.to_gguf())}) {
    for (const char* text : {"abab", "  a   b ", "a??b", ""})
      EXPECT_EQ(other.encode(text, true), tokenizer.encode(text, true));
  }
  metadata.unk_id.reset();
  EXPECT_THROW(make(metadata), BadFile);
}

TEST(SentencePieceGguf, RefusesWhatDoesNotHoldTogether) {
  const auto with = [](auto&& change) {
    GgufTokenizer metadata = small();
    change(metadata);
    return make(metadata);
  };
  EXPECT_THROW(with([](auto& m) { m.scores.pop_back(); }), BadFile);
  EXPECT_THROW(with([](auto& m) { m.scores[5] = std::numeric_limits<float>::quiet_NaN(); }), BadFile);
  EXPECT_THROW(with([](auto& m) { m.unk_id = 999; }), BadFile);
  EXPECT_THROW(with([](auto& m) {
                 m.model = "t5";
                 m.precompiled_charsmap = "abc";
               }),
               BadFile);
}

TEST(SentencePieceModel, RefusesBrokenFiles) {
  const auto read = [](std::string bytes) { return Tokenizer::from_hf_texts({.tokenizer_model = std::move(bytes)}); };
  using std::string_literals::operator""s;
  EXPECT_THROW(read("\x0A\x05"s), BadFile);              // a piece of 5 bytes, of which none is there
  EXPECT_THROW(read("\x0A\x02\x0A\x09"s), BadFile);      // a text longer than its piece
  EXPECT_THROW(read("\x08\x01"s), BadFile);              // a piece that is a number
  EXPECT_THROW(read("\x0B"s), BadFile);                  // a group
  EXPECT_THROW(read("\x0A\x02\x18\x09"s), BadFile);      // type 9
  EXPECT_THROW(read("\x12\x02\x18\x03"s), Unsupported);  // words as tokens
}

/// A map of one rule, "H" to "h": the units that matter are the root, the character's and its leaf.
std::string one_rule() {
  std::vector<std::uint32_t> units(81);
  units[0] = 4 * 80;  // bytes of the trie
  units[1] = 1U << 10;
  units[1 + (1 ^ 'H')] = 2U << 10 | 1U << 8 | 'H';
  units[1 + (1 ^ 'H' ^ 2)] = 1U << 31;
  return std::string(reinterpret_cast<const char*>(units.data()), 4 * units.size()) + std::string("h\0", 2);
}

TEST(CharsMap, AppliesItsRules) {
  const CharsMap map(one_rule(), "test");
  for (const auto search : {CharsMap::Search::kLongest, CharsMap::Search::kGrapheme})
    EXPECT_EQ(map.apply("HaH\u6f22 b", search), "hah\u6f22 b");
  // HF tokenizers puts the replacement in place of the whole grapheme, its accent too.
  EXPECT_EQ(map.apply("H\u0301", CharsMap::Search::kLongest), "h\u0301");
  EXPECT_EQ(map.apply("H\u0301", CharsMap::Search::kGrapheme), "h");
}

TEST(CharsMap, RefusesSizesThatDoNotFit) {
  using std::string_literals::operator""s;
  EXPECT_THROW(CharsMap("", "test"), BadFile);
  EXPECT_THROW(CharsMap("\x08\0\0\0abcd"s, "test"), BadFile);
  EXPECT_EQ(CharsMap("\0\0\0\0"s, "test").apply("ab", CharsMap::Search::kLongest), "ab");
}

TEST(Base64, IsItsOwnInverse) {
  EXPECT_EQ(encode_base64("Many hands"), "TWFueSBoYW5kcw==");
  for (const std::string text : {"", "a", "ab", "abc", "\xFF\xFE\xFD\xFC"})
    EXPECT_EQ(decode_base64(encode_base64(text)), text);
  for (const char* bad : {"a", "ab==c", "a===", "ab!=", "TR=="}) EXPECT_EQ(decode_base64(bad), std::nullopt) << bad;
}

}  // namespace
}  // namespace temper::text
