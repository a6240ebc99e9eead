// What the readers take, refuse and write.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace temper::text {
namespace {

using Json = nlohmann::json;

/// All 256 bytes and "ab", "abc", "Ġa": ids 0 to 258; added: 259 <s>, 260 </s> (special), 261 <tool>.
Json small() {
  Json vocab = Json::object();
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    vocab[bytes_to_alphabet({&byte, 1})] = b;
  }
  vocab["ab"] = 256;
  vocab["abc"] = 257;
  vocab
      ["\xC4\xA0"
       "a"] = 258;
  const auto added = [](int id, const char* content, bool special) {
    return Json{{"id", id}, {"content", content}, {"special", special}, {"normalized", false}};
  };
  return {{"added_tokens", {added(259, "<s>", true), added(260, "</s>", true), added(261, "<tool>", false)}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", "ab c", "\xC4\xA0 a"}}}}};
}

Tokenizer from(const Json& json, Tokenizer::HfTexts texts = {}) {
  texts.tokenizer_json = json.dump();
  return Tokenizer::from_hf_texts(texts);
}

GgufTokenizer small_gguf() {
  GgufTokenizer out = from(small()).to_gguf();
  out.bos_id = 259;
  out.eos_id = 260;
  out.chat_template = "{{ messages }}";
  return out;
}

using Ids = std::vector<std::int32_t>;

/// Tokens beyond the model's embedding are harmless until a text has one.
TEST(Tokenizer, TokensBeyondTheEmbeddingAreRefusedWhereTheyOccur) {
  Tokenizer::HfTexts texts;
  texts.name = "there/tokenizer.json";
  const Tokenizer tokenizer = from(small(), texts).with_rows(261);
  EXPECT_EQ(tokenizer.encode("abc<s>", true), (Ids{257, 259}));
  EXPECT_NO_THROW(tokenizer.check_rows(Ids{0, 260}));
  EXPECT_EQ(tokenizer.decode(Ids{261}, false), "<tool>");
  for (const auto& use : {std::function([&] { tokenizer.encode("ab <tool>", true); }),
                          std::function([&] { tokenizer.encode_with_special("<tool>"); }),
                          std::function([&] { tokenizer.check_rows(Ids{261}); })}) {
    try {
      use();
      FAIL() << "no exception";
    } catch (const BadData& error) {
      for (const char* word : {"there/tokenizer.json", "<tool>", "id 261", "261 rows"})
        EXPECT_NE(std::string(error.what()).find(word), std::string::npos) << error.what();
    }
  }
  EXPECT_EQ(from(small()).encode("<tool>", true), Ids{261});
}

TEST(Tokenizer, MergesByRank) {
  const Tokenizer tokenizer = from(small());
  EXPECT_EQ(tokenizer.vocab_size(), 262);
  EXPECT_EQ(tokenizer.encode("abc ab a", true), (Ids{257, ' ', 256, 258}));  // "a b" goes before " a"
  EXPECT_EQ(tokenizer.encode("", true), Ids{});
  EXPECT_EQ(tokenizer.encode("<s>abc</s><tool>", true), (Ids{259, 257, 260, 261}));
  EXPECT_EQ(tokenizer.encode("<s><tool>", false), (Ids{'<', 's', '>', 261}));
  EXPECT_EQ(tokenizer.decode(Ids{259, 257, 258, 260}, true), "abc a");
  EXPECT_EQ(tokenizer.decode(Ids{259, 257, 258, 260}, false), "<s>abc a</s>");
  EXPECT_EQ(tokenizer.token_bytes(258), " a");
  EXPECT_TRUE(tokenizer.is_special(259));
  EXPECT_FALSE(tokenizer.is_special(261));
  EXPECT_THROW(tokenizer.token_bytes(262), LogicError);
  EXPECT_THROW(tokenizer.decode(Ids{-1}, true), LogicError);
}

TEST(Tokenizer, ReadsInvalidUtf8AsReplacementCharacters) {
  const Tokenizer tokenizer = from(small());
  EXPECT_EQ(tokenizer.encode("a\xFF", true), tokenizer.encode("a\xEF\xBF\xBD", true));
}

TEST(Tokenizer, MayBeSharedByThreads) {
  const Tokenizer tokenizer = from(small());
  std::string text;
  for (int i = 0; i < 4000; ++i) text += "abc ab" + std::to_string(i % 97) + " ";
  const Ids expected = tokenizer.encode(text, true);
  std::vector<Ids> found(4);
  std::vector<std::thread> threads;
  for (Ids& ids : found) threads.emplace_back([&] { ids = tokenizer.encode(text, true); });
  for (std::thread& thread : threads) thread.join();
  for (const Ids& ids : found) EXPECT_EQ(ids, expected);
}

TEST(TokenizerHf, TakesSpecialTokensAndTemplatesOfBothLayouts) {
  Tokenizer::HfTexts four;  // transformers 4: objects, added_tokens_decoder, special_tokens_map.json, named templates
  four.tokenizer_config_json =
      R"({"bos_token": {"content": "<s>"}, "tokenizer_class": "LlamaTokenizerFast", "add_bos_token": true,
      "added_tokens_decoder": {"262": {"content": "<|eot_id|>", "special": true}},
      "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]})";
  four.special_tokens_map_json = R"({"eos_token": "</s>", "pad_token": {"content": "</s>"}})";
  four.generation_config_json = R"({"eos_token_id": [260, 261]})";
  const Tokenizer a = from(small(), four);
  EXPECT_EQ(a.bos_id(), 259);
  EXPECT_EQ(a.eos_id(), 260);
  EXPECT_EQ(a.pad_id(), 260);
  EXPECT_EQ(a.unk_id(), std::nullopt);
  EXPECT_EQ(a.vocab_size(), 263);
  EXPECT_EQ(a.eog_ids(), (std::vector<std::int32_t>{260, 261, 262}));
  EXPECT_TRUE(a.adds_bos());
  EXPECT_EQ(a.encode_with_special("abc"), (Ids{259, 257}));
  EXPECT_EQ(a.chat_template(), "D");

  Tokenizer::HfTexts five;  // transformers 5: plain strings, the template in a file of its own
  five.tokenizer_config_json = R"({"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "TokenizersBackend"})";
  five.chat_template_jinja = "J";
  const Tokenizer b = from(small(), five);
  EXPECT_EQ(b.eos_id(), 260);
  EXPECT_FALSE(b.adds_bos());
  EXPECT_EQ(b.chat_template(), "J");
  EXPECT_EQ(Json::parse(b.to_hf_config_json()).at("chat_template"), "J");
}

TEST(TokenizerHf, ReadsAFolder) {
  const auto folder = std::filesystem::temp_directory_path() / ("temper_tokenizer_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  EXPECT_THROW(Tokenizer::load(folder), BadFile);
  std::ofstream(folder / "tokenizer.json") << small().dump();
  std::ofstream(folder / "chat_template.jinja") << "J";
  const Tokenizer tokenizer = Tokenizer::load(folder);
  EXPECT_EQ(tokenizer.encode("abc", true), Ids{257});
  EXPECT_EQ(tokenizer.chat_template(), "J");
  EXPECT_EQ(tokenizer.to_hf_json(), small().dump());
  std::filesystem::remove_all(folder);
}

TEST(TokenizerHf, RefusesWhatItWouldGetWrong) {
  const auto with = [](const std::string& pointer, const Json& value) {
    Json json = small();
    json[Json::json_pointer(pointer)] = value;
    return json;
  };
  EXPECT_THROW(from(with("/model/type", "Unigram")), Unsupported);
  EXPECT_THROW(from(with("/model/byte_fallback", true)), Unsupported);
  EXPECT_THROW(from(with("/model/dropout", 0.1)), Unsupported);
  EXPECT_THROW(from(with("/model/end_of_word_suffix", "</w>")), Unsupported);
  EXPECT_THROW(from(with("/normalizer", {{"type", "Lowercase"}})), Unsupported);
  EXPECT_THROW(from(with("/pre_tokenizer", {{"type", "BertPreTokenizer"}})), Unsupported);
  EXPECT_THROW(from(with("/pre_tokenizer", {{"type", "Digits"}})), Unsupported);  // no ByteLevel, but its decoder
  EXPECT_THROW(from(with("/decoder", {{"type", "WordPiece"}})), Unsupported);
  const auto split = [](const char* regex) {
    return Json{{"type", "Sequence"},
                {"pretokenizers",
                 {{{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}},
                  {{"type", "ByteLevel"}, {"use_regex", false}}}}};
  };
  EXPECT_THROW(from(with("/pre_tokenizer", split("[\\p{L}&&[^a]]"))), Unsupported);
  EXPECT_THROW(from(with("/pre_tokenizer", split("(a"))), Unsupported);
  EXPECT_NO_THROW(from(with("/pre_tokenizer", split("[^\\[\\]]\\S+"))));
}

TEST(TokenizerHf, RefusesWhatDoesNotHoldTogether) {
  const auto with = [](const std::string& pointer, const Json& value) {
    Json json = small();
    json[Json::json_pointer(pointer)] = value;
    return json;
  };
  EXPECT_THROW(Tokenizer::from_hf_texts({.tokenizer_json = "{"}), BadFile);
  EXPECT_THROW(Tokenizer::from_hf_texts({.tokenizer_json = "[]"}), BadFile);
  EXPECT_THROW(from(with("/model/vocab/ab", 257)), BadFile);  // an id twice
  EXPECT_THROW(from(with("/model/vocab/ab", -1)), BadFile);
  EXPECT_THROW(from(with("/model/vocab/ab", 4000000000U)), BadFile);  // a table of that size is not believed
  EXPECT_THROW(from(with("/model/vocab/ab", "x")), BadFile);
  EXPECT_THROW(from(with("/model/merges/0", "a")), BadFile);
  EXPECT_THROW(from(with("/model/merges/0", "a zz")), BadFile);  // not in the vocabulary
  EXPECT_THROW(from(with("/model/merges/0", "b a")), BadFile);   // nor is the result
  EXPECT_THROW(from(with("/model/merges/0", "ab c")), BadFile);  // twice
  EXPECT_THROW(from(with("/model/merges/0", {"a"})), BadFile);
  EXPECT_THROW(from(with("/added_tokens/0/id", 5)), BadFile);  // that of another token
  EXPECT_THROW(from(with("/added_tokens/0/id", 99999999)), BadFile);
  EXPECT_THROW(from(with("/added_tokens/0/content", "ab")), BadFile);  // a text with two ids
  EXPECT_THROW(from(with("/post_processor", {{"type", "BertProcessing"}, {"cls", {"no", 1}}, {"sep", {"<s>", 259}}})),
               BadFile);
}

TEST(TokenizerGguf, GivesTheSameIdsAndGoesBack) {
  const Tokenizer hf = from(small());
  const Tokenizer tokenizer = Tokenizer::from_gguf_metadata(small_gguf(), "test.gguf");
  const std::string text = "<s>abc ab<tool> don't 123 \n\n abc</s>";
  EXPECT_EQ(tokenizer.encode(text, true), hf.encode(text, true));
  EXPECT_EQ(tokenizer.encode(text, false), hf.encode(text, false));
  EXPECT_EQ(tokenizer.bos_id(), 259);
  EXPECT_EQ(tokenizer.eog_ids(), Ids{260});
  EXPECT_EQ(tokenizer.chat_template(), "{{ messages }}");
  const GgufTokenizer expected = small_gguf();
  const GgufTokenizer back = tokenizer.to_gguf();
  EXPECT_EQ(back.pre, "gpt-2");
  EXPECT_EQ(back.tokens, expected.tokens);
  EXPECT_EQ(back.token_type, expected.token_type);
  EXPECT_EQ(back.merges, expected.merges);
  EXPECT_EQ(back.eos_id, expected.eos_id);
}

TEST(TokenizerGguf, WritesAnEqualHfTokenizer) {
  for (const std::string pre : {"gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "deepseek-v3", "default"}) {
    GgufTokenizer metadata = small_gguf();
    metadata.pre = pre;
    metadata.add_bos = metadata.add_eos = true;
    const Tokenizer gguf = Tokenizer::from_gguf_metadata(metadata, "test.gguf");
    Tokenizer::HfTexts texts;
    texts.tokenizer_json = gguf.to_hf_json();
    texts.tokenizer_config_json = gguf.to_hf_config_json();
    const Tokenizer hf = Tokenizer::from_hf_texts(texts);
    const std::string text = "abc<s> don't 12345 \xE4\xBD\xA0 !?\n\n  x";
    EXPECT_EQ(hf.encode(text, true), gguf.encode(text, true)) << pre;
    EXPECT_EQ(hf.encode_with_special(text), gguf.encode_with_special(text)) << pre;
    EXPECT_EQ(hf.encode_with_special("abc"), (Ids{259, 257, 260})) << pre;
    EXPECT_EQ(hf.bos_id(), 259);
    EXPECT_EQ(hf.eos_id(), 260);
    EXPECT_EQ(hf.chat_template(), gguf.chat_template());
    EXPECT_EQ(hf.to_gguf().pre, pre);
    EXPECT_EQ(hf.to_gguf().merges, gguf.to_gguf().merges);
  }
}

TEST(TokenizerGguf, RefusesWhatDoesNotHoldTogether) {
  const auto with = [](auto&& change) {
    GgufTokenizer metadata = small_gguf();
    change(metadata);
    return Tokenizer::from_gguf_metadata(metadata, "test.gguf");
  };
  EXPECT_THROW(with([](auto& m) { m.model = "bert"; }), Unsupported);
  EXPECT_THROW(with([](auto& m) { m.model = "llama"; }), BadFile);  // without scores
  EXPECT_THROW(with([](auto& m) { m.pre = "nobody-knows"; }), Unsupported);
  EXPECT_THROW(with([](auto& m) { m.tokens.clear(); }), BadFile);
  EXPECT_THROW(with([](auto& m) { m.token_type.pop_back(); }), BadFile);
  EXPECT_THROW(with([](auto& m) { m.token_type[0] = 9; }), BadFile);
  EXPECT_THROW(with([](auto& m) { m.tokens[1] = m.tokens[0]; }), BadFile);
  EXPECT_THROW(with([](auto& m) { m.tokens[1] = "\xFF"; }), BadFile);
  EXPECT_THROW(with([](auto& m) { m.eos_id = 262; }), BadFile);
  EXPECT_THROW(with([](auto& m) { m.chat_template = "\xFF"; }), BadFile);
  EXPECT_THROW(with([](auto& m) { m.merges[0] = "a zz"; }), BadFile);
  EXPECT_THROW(with([](auto& m) { m.merges[0] = "ab"; }), BadFile);
  EXPECT_NO_THROW(with([](auto& m) { m.token_type.clear(); }));
}

TEST(TokenizerGguf, TakesEndOfTurnTokensForSpecialWhateverTheirType) {
  GgufTokenizer metadata = small_gguf();
  metadata.tokens.push_back("<|im_end|>");
  metadata.token_type.push_back(1);
  const Tokenizer tokenizer = Tokenizer::from_gguf_metadata(metadata, "test.gguf");
  EXPECT_EQ(tokenizer.encode("ab<|im_end|>", true), (Ids{256, 262}));
  EXPECT_EQ(tokenizer.eog_ids(), (Ids{260, 262}));
}

TEST(TokenizerGguf, FillsHolesWithUnusedTokens) {
  Json json = small();
  json["added_tokens"][2]["id"] = 300;
  const GgufTokenizer metadata = from(json).to_gguf();
  ASSERT_EQ(metadata.tokens.size(), 301U);
  EXPECT_EQ(metadata.tokens[261], "[PAD261]");
  EXPECT_EQ(metadata.token_type[261], 5);
  EXPECT_EQ(metadata.token_type[259], 3);
  EXPECT_EQ(metadata.token_type[300], 4);
}

}  // namespace
}  // namespace temper::text
