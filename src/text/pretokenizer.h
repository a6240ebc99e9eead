// Cutting text into words before a model tokenizes each: the steps of a Hugging Face `pre_tokenizer`, and the sets of
// patterns that GGUF knows by name.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "files/json.h"
#include "text/pattern.h"
#include "text/text_part.h"

namespace temper::text {

/// What becomes of the parts that a pattern matches, as HF tokenizers names it.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// One step, applied to every piece that the steps before it left.
struct PreTokenizerStep {
  enum class Kind {
    kSplit,        ///< cut at the matches of `pattern`
    kPrefixSpace,  ///< put a space before a piece that does not start with one
    kAlphabet,     ///< write the bytes in the byte-to-character alphabet; only where further steps see that
    kMetaspace,    ///< write `pattern`, a character, for each space, and put it before a piece as `prepend` says
  };
  enum class Prepend { kNever, kFirst, kAlways };  // kFirst: at the beginning of a text only
  Kind kind = Kind::kSplit;
  std::string pattern;  ///< regular expression in Oniguruma's Ruby syntax, as tokenizer.json has it
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  ///< the gaps between matches count as the matches
  Prepend prepend = Prepend::kNever;

  bool operator==(const PreTokenizerStep&) const = default;
};

/// A compiled list of steps. Immutable; may be used from several threads at once.
class PreTokenizer {
 public:
  /// Throws Unsupported for a pattern that PCRE2 does not read as Oniguruma would, naming `origin`.
  PreTokenizer(std::vector<PreTokenizerStep> steps, const std::string& origin);
  ~PreTokenizer();
  PreTokenizer(PreTokenizer&&) noexcept;
  PreTokenizer& operator=(PreTokenizer&&) noexcept;

  /// Calls `word(bytes)` for each word of `text` (valid UTF-8), in order. Throws BadData where a pattern gives up.
  template <typename Word>
  void split(std::string_view text, TextPart part, Word&& word) const {
    Pieces pieces = cut(text, part);
    for (const std::string_view piece : pieces.views) word(piece);
  }

  const std::vector<PreTokenizerStep>& steps() const { return steps_; }

 private:
  struct Pieces {
    std::vector<std::string_view> views;
    std::vector<std::unique_ptr<std::string>> owned;  // what steps wrote anew
  };
  Pieces cut(std::string_view text, TextPart part) const;
  void apply(std::size_t step, TextPart part, Pieces& pieces) const;

  std::vector<PreTokenizerStep> steps_;
  std::vector<std::unique_ptr<Pattern>> patterns_;  // by step; null where there is no pattern
};

/// What a `pre_tokenizer` object of tokenizer.json says.
struct JsonPreTokenizer {
  std::vector<PreTokenizerStep> steps;
  bool byte_level = false;  ///< the model sees bytes: a ByteLevel is among the steps
};
/// ByteLevel, Split, Digits, Punctuation, Whitespace, WhitespaceSplit, Metaspace and Sequences of them. Throws BadFile;
/// Unsupported for other kinds.
JsonPreTokenizer pre_tokenizer_from_json(const files::Json& pre_tokenizer, const std::string& origin);
/// The `pre_tokenizer` object of a byte-level tokenizer, for steps that are all kSplit.
files::Json pre_tokenizer_to_json(const std::vector<PreTokenizerStep>& steps);

/// A pre-tokenizer that GGUF names, with what the name implies besides.
struct NamedPreTokenizer {
  std::vector<PreTokenizerStep> steps;
  bool ignore_merges = false;  ///< a word that is a token is that token, whatever the merges say
  bool add_bos = false;        ///< unless the file says otherwise
};

/// For a value of `tokenizer.ggml.pre`; nothing for a name that temper does not know.
std::optional<NamedPreTokenizer> named_pre_tokenizer(std::string_view name);
/// The first name whose patterns and merge rule are these.
std::optional<std::string> name_of_pre_tokenizer(const std::vector<PreTokenizerStep>& steps, bool ignore_merges);
/// All known names, for messages.
std::string known_pre_tokenizers();

/// GPT-2's pattern, which ByteLevel applies when `use_regex` is set.
std::string_view gpt2_pattern();

}  // namespace temper::text
