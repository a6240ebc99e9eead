// What a Tokenizer holds, and the two readers' common ground. Private to the tokenizer's sources.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/bpe.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"
#include "text/tokenizer_added.h"

namespace temper::text {

/// True for the special tokens that end a turn in some model family, though its EOS may be another.
bool ends_turn(std::string_view text);

struct Tokenizer::Impl {
  enum class Kind : std::uint8_t { kNone, kNormal, kUnused, kAdded, kSpecial };  // kNone: an id without a token

  std::string origin;
  std::vector<std::string> texts;  // by id
  std::vector<Kind> kinds;         // by id
  TokenIds ids;                    // points into texts
  std::vector<AddedToken> added;
  std::vector<NormalForm> normal_forms;
  AddedTokenMatcher raw_matcher, normalized_matcher;
  std::vector<std::string> merges;
  bool ignore_merges = false;
  std::unique_ptr<PreTokenizer> pre_tokenizer;
  std::unique_ptr<Bpe> bpe;

  std::vector<std::int32_t> prefix, suffix;  // what the post-processor puts around a text
  std::optional<std::int32_t> bos, eos, pad, unk;
  std::vector<std::int32_t> eog;  // ascending
  std::optional<std::string> chat_template;

  std::string hf_json, hf_config_json;  // as read; empty if the tokenizer came from GGUF
  std::optional<GgufTokenizer> gguf;    // as read, without the arrays; empty if it came from a folder

  Impl() = default;
  Impl(const Impl&) = delete;  // `ids` points into `texts`
  Impl& operator=(const Impl&) = delete;

  /// Takes a token in. Throws BadFile for an id or a text that is taken already, or a text that is no UTF-8.
  void add_token(std::int32_t id, std::string_view text, Kind kind);
  /// To call once every token is there, since lookups point into `texts`.
  void index_tokens();
  /// `text` in the normal forms, one after the other.
  std::string normalized(std::string_view text) const;
  /// Fills the matchers from `added`, and `eog` from EOS and the well-known names of end-of-turn tokens.
  void finish(std::vector<std::int32_t> more_eog);
  std::optional<std::int32_t> id_of(std::string_view text) const;
  std::size_t checked(std::int32_t id) const;  // as an index; throws LogicError
};

}  // namespace temper::text
