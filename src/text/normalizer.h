// What is done to a text before it is cut into words: the steps of a Hugging Face `normalizer`, which those of a
// SentencePiece model are written as, too.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "files/json.h"
#include "text/charsmap.h"
#include "text/pattern.h"
#include "text/pretokenizer.h"
#include "text/unicode.h"

namespace temper::text {

struct NormalizerStep {
  enum class Kind {
    kForm,      ///< a Unicode normal form
    kPrepend,   ///< `content` before a text that is not empty
    kReplace,   ///< `content` for each `pattern`, a literal text
    kPattern,   ///< `content` for each match of `pattern`, a regular expression in Oniguruma's Ruby syntax
    kStrip,     ///< no white space at the beginning (`left`) or end (`right`)
    kCharsMap,  ///< `content`, a precompiled map, applied
  };
  Kind kind = Kind::kForm;
  NormalForm form = NormalForm::kNfc;
  std::string pattern = {}, content = {};
  bool left = false, right = false;
  CharsMap::Search search = CharsMap::Search::kLongest;
};

/// A compiled list of steps. Immutable; may be used from several threads at once.
class Normalizer {
 public:
  Normalizer() = default;
  /// Throws Unsupported for a pattern that PCRE2 does not read as Oniguruma would, BadFile for a broken map, naming
  /// `origin`.
  Normalizer(std::vector<NormalizerStep> steps, const std::string& origin);

  /// `text`: valid UTF-8.
  std::string apply(std::string_view text, TextPart part) const;
  const std::vector<NormalizerStep>& steps() const { return steps_; }

 private:
  std::vector<NormalizerStep> steps_;
  std::vector<std::unique_ptr<Pattern>> patterns_;  // by step; null where there is none
  std::vector<std::unique_ptr<CharsMap>> maps_;     // by step; null where there is none
};

/// NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip, Precompiled and Sequences of them. Throws BadFile; Unsupported for others.
std::vector<NormalizerStep> normalizer_from_json(const files::Json& normalizer, const std::string& origin);
/// Null for no steps.
files::Json normalizer_to_json(const std::vector<NormalizerStep>& steps);

}  // namespace temper::text
