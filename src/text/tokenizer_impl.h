// What a Tokenizer holds, and the two readers' common ground. Private to the tokenizer's sources.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/normalizer.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"
#include "text/tokenizer_added.h"
#include "text/word_model.h"

namespace temper::text {

/// The byte that a token such as `<0x0A>` stands for.
std::optional<unsigned char> byte_of_token(std::string_view text);

/// True for the special tokens that end a turn in some model family, though its EOS may be another.
bool ends_turn(std::string_view text);

/// U+2581, which SentencePiece writes for a space.
inline constexpr std::string_view kMetaspace = "\xE2\x96\x81";

struct Tokenizer::Impl {
  enum class Kind : std::uint8_t { kNone, kNormal, kByte, kUnused, kAdded, kSpecial };  // kNone: an id without a token
  enum class Model : std::uint8_t { kByteBpe, kBpe, kUnigram };                         // kBpe: of characters

  std::string origin;
  std::vector<std::string> texts;  // by id
  std::vector<Kind> kinds;         // by id
  TokenIds ids;                    // points into texts
  std::vector<AddedToken> added;
  AddedTokenMatcher raw_matcher, normalized_matcher;
  Normalizer normalizer;
  std::unique_ptr<PreTokenizer> pre_tokenizer;
  Model kind_of_model = Model::kByteBpe;
  std::vector<std::string> merges;  // BPE; of characters, either merges or scores
  std::vector<double> scores;       // by id
  bool ignore_merges = false;
  std::unique_ptr<WordModel> model;
  std::size_t strip_left = 0;      // spaces that decoding takes away from the beginning of a text
  bool strip_first_token = false;  // or all that the first token begins with, as HF's Metaspace decoder does

  std::vector<std::int32_t> prefix, suffix;  // what the post-processor puts around a text
  std::optional<std::int32_t> bos, eos, pad, unk;
  std::vector<std::int32_t> eog;  // ascending
  std::optional<std::string> chat_template;

  std::string hf_json, hf_config_json;  // as read; empty unless the tokenizer came from tokenizer.json
  std::string tokenizer_model;          // as read; empty if there was none
  std::optional<GgufTokenizer> gguf;    // as read, without the arrays; empty if it came from a folder

  Impl() = default;
  Impl(const Impl&) = delete;  // `ids` points into `texts`
  Impl& operator=(const Impl&) = delete;

  /// Takes a token in. Throws BadFile for an id or a text that is taken already, or a text that is no UTF-8.
  void add_token(std::int32_t id, std::string_view text, Kind kind);
  /// To call once every token is there, since lookups point into `texts`.
  void index_tokens();
  /// `<0x00>` to `<0xFF>` among tokens of kind kByte.
  ByteTokens byte_tokens() const;
  /// Ids of the tokens of kind kNormal.
  TokenIds normal_ids() const;
  /// Fills the matchers from `added`, and `eog` from EOS and the well-known names of end-of-turn tokens.
  void finish(std::vector<std::int32_t> more_eog);
  std::optional<std::int32_t> id_of(std::string_view text) const;
  std::size_t checked(std::int32_t id) const;  // as an index; throws LogicError
};

}  // namespace temper::text
