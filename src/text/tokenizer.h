// Tokenizers: byte-level BPE, and SentencePiece's BPE and unigram models, read from a Hugging Face folder (tokenizer.json)
// or from the metadata of a GGUF file.
//
// SentencePiece's write a space as U+2581, and many put one before each text ("▁Hello"), where it stands for nothing: see
// TextPart.
//
// Text is UTF-8. Invalid UTF-8 is not refused: each maximal ill-formed part is read as U+FFFD, as Python's
// `bytes.decode("utf-8", "replace")` does before HF tokenizers ever sees the text (Unicode standard, section 3.9).
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/text_part.h"
#include "text/unicode.h"

namespace temper::files {
class GgufFile;
}

namespace temper::text {

/// What a GGUF writer stores under `tokenizer.*`; arrays are indexed by token id.
struct GgufTokenizer {
  std::string model;                ///< tokenizer.ggml.model: gpt2, byte-level BPE; llama, SentencePiece's; t5, unigram
  std::string pre;                  ///< tokenizer.ggml.pre: the name of the pre-tokenizer's patterns
  std::vector<std::string> tokens;  ///< in the byte-to-character alphabet, or with U+2581 for spaces; added ones as they are
  std::vector<float> scores;        ///< llama: the greatest is merged first; t5: log probabilities
  std::vector<int32_t> token_type;  ///< NORMAL 1, UNKNOWN 2, CONTROL 3, USER_DEFINED 4, UNUSED 5, BYTE 6
  std::vector<std::string> merges;  ///< gpt2: "left right", best first
  std::optional<int32_t> bos_id, eos_id, eot_id, eom_id, pad_id, unk_id;
  bool add_bos = false, add_eos = false, add_space_prefix = false;
  bool remove_extra_whitespaces = false;  ///< t5: no spaces at the ends, no two side by side
  std::string precompiled_charsmap;       ///< t5: see charsmap.h; may be empty
  bool special_strip_right = false;       ///< Phi-3's special tokens take the white space after them along
  std::optional<std::string> chat_template;
};

/// Immutable after construction; cheap to copy; every member may be called from several threads at once.
class Tokenizer {
 public:
  /// The JSON texts of a Hugging Face folder; an empty string stands for a file that is not there.
  struct HfTexts {
    std::string tokenizer_json = {}, tokenizer_config_json = {}, special_tokens_map_json = {}, generation_config_json = {},
                chat_template_jinja = {};
    std::string tokenizer_model = {};     ///< a SentencePiece model; read where there is no tokenizer.json
    std::string name = "tokenizer.json";  ///< the name that errors give
  };

  /// tokenizer.json, or else tokenizer.model, with tokenizer_config.json, special_tokens_map.json, generation_config.json
  /// and chat_template.jinja where they exist (layouts of transformers 4 and 5). Throws BadFile, Unsupported.
  static Tokenizer from_hf_folder(const std::filesystem::path& folder);
  /// The same from memory.
  static Tokenizer from_hf_texts(const HfTexts& texts);
  /// The `tokenizer.*` keys of a GGUF file. Throws BadFile, Unsupported (an unknown `tokenizer.ggml.pre`, a model other than
  /// gpt2, llama and t5).
  static Tokenizer from_gguf(const files::GgufFile& file);
  /// The same from values in memory; `name` is the name that errors give.
  static Tokenizer from_gguf_metadata(GgufTokenizer metadata, const std::string& name);
  /// A folder or a .gguf file.
  static Tokenizer load(const std::filesystem::path& path);

  /// The same for a model whose embedding has so many rows. A tokenizer may have tokens beyond them, which then must not
  /// occur: encoding a text that has one throws BadData, naming the file, the token, its id and the rows.
  Tokenizer with_rows(std::int64_t rows) const;
  /// Throws so unless each of `ids` has a row; for ids that come from elsewhere than a text, such as EOS.
  void check_rows(std::span<const int32_t> ids) const;

  /// Token ids of `text`; no BOS or EOS is added. With `parse_special` the texts of special tokens (control tokens in GGUF)
  /// become their ids; without it they are ordinary text. Added tokens that are not special are matched either way.
  std::vector<int32_t> encode(std::string_view text, bool parse_special, TextPart part = TextPart::kWhole) const;
  /// `encode(text, true)` with BOS and EOS as the tokenizer's own post-processor, or `add_bos_token`, asks for.
  std::vector<int32_t> encode_with_special(std::string_view text) const;
  /// True if `encode_with_special` puts BOS in front / EOS behind.
  bool adds_bos() const;
  bool adds_eos() const;

  /// Text of `ids`. Bytes that form no UTF-8 come out as U+FFFD. Throws LogicError for an id outside the vocabulary.
  std::string decode(std::span<const int32_t> ids, bool skip_special, TextPart part = TextPart::kWhole) const;
  /// The raw bytes that `id` stands for; may be part of a character (see TextStream).
  std::string token_bytes(int32_t id) const;

  /// Number of ids: the greatest id plus one. Ids without a token have an empty text.
  int32_t vocab_size() const;
  /// The token as the vocabulary writes it (byte-to-character alphabet, or U+2581 for spaces; added tokens as they are).
  const std::string& token_text(int32_t id) const;
  std::optional<int32_t> token_id(std::string_view token_text) const;
  /// A special added token (control token in GGUF): left out by `decode(…, true)`.
  bool is_special(int32_t id) const;
  /// A token that is found in a text before the model sees it, special or not.
  bool is_added(int32_t id) const;

  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> pad_id() const;
  std::optional<int32_t> unk_id() const;
  /// Ids that end generation, ascending: EOS, those that generation_config.json or GGUF name, and end-of-turn tokens by
  /// name.
  const std::vector<int32_t>& eog_ids() const;
  bool is_eog(int32_t id) const;

  /// The default chat template (Jinja), if there is one.
  const std::optional<std::string>& chat_template() const;

  /// A tokenizer.json that HF tokenizers loads and that gives equal ids. The original text where the tokenizer came from
  /// one.
  std::string to_hf_json() const;
  /// tokenizer_config.json: class, special tokens, chat template.
  std::string to_hf_config_json() const;
  /// tokenizer.model as it was beside or in place of tokenizer.json; empty if there was none.
  const std::string& sentencepiece_model() const;
  /// What a GGUF writer needs. Throws Unsupported if GGUF cannot say what the tokenizer does: a pre-tokenizer without a name
  /// there, merges that no scores order.
  GgufTokenizer to_gguf() const;

  struct Impl;

 private:
  friend class TextStream;
  explicit Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const Impl> impl_;
  std::int64_t rows_ = std::numeric_limits<std::int64_t>::max();  // of the model's embedding
};

/// Tokens into text as they come, in whole UTF-8 characters: what `Tokenizer::decode` gives, piece by piece.
class TextStream {
 public:
  TextStream(Tokenizer tokenizer, bool skip_special, TextPart part);
  /// The text that is complete after `id`. Throws LogicError for an id outside the vocabulary.
  std::string push(int32_t id);
  /// What is left at the end: U+FFFD for an unfinished character, else nothing.
  std::string finish() { return characters_.finish(); }

 private:
  Tokenizer tokenizer_;
  Utf8Stream characters_;
  bool skip_special_, first_;  // first_: nothing of a whole text has come yet
  std::size_t strip_;          // spaces still to take away
};

}  // namespace temper::text
