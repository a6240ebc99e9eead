// SentencePiece's precompiled character map: normalization rules compiled into a double-array trie over UTF-8.
// Format (sentencepiece, src/normalizer.cc): u32 bytes of the trie; the trie's units, u32 little endian, as Darts-clone
// lays them out; then the replacements, each ended by a zero byte.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace temper::text {

class CharsMap {
 public:
  /// How the rules are sought; they differ where one rule's text begins another's.
  enum class Search {
    kLongest,   ///< SentencePiece and llama.cpp: the longest rule that fits at each place
    kGrapheme,  ///< HF tokenizers: the shortest that begins a grapheme of fewer than 6 bytes, or each of its characters
  };
  /// `blob`: the whole map. Throws BadFile, naming `origin`, for sizes that do not fit.
  CharsMap(std::string blob, const std::string& origin);

  /// `text` (valid UTF-8) with the rules applied; what no rule speaks of stays.
  std::string apply(std::string_view text, Search search) const;
  const std::string& blob() const { return blob_; }

 private:
  struct Match {
    std::size_t length = 0;  // 0: none
    std::uint32_t replacement = 0;
  };
  std::uint32_t unit(std::uint64_t index) const;
  /// The shortest or longest rule that `text` begins with.
  Match match(std::string_view text, bool longest) const;
  std::string_view replacement(std::uint32_t offset) const;
  void append_grapheme(std::string_view grapheme, std::string& out) const;

  std::string blob_;
  std::vector<std::uint32_t> units_;
  std::string replacements_;  // ends with a zero byte
};

}  // namespace temper::text
