// Byte-pair encoding of one word by ranked merges: the best-ranked pair of neighbours is merged until none is left, the
// leftmost first among equals (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909). It sets out from bytes (GPT-2), or
// from characters, those without a token being written as bytes (what Hugging Face makes of SentencePiece's BPE).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/word_model.h"

namespace temper::text {

struct BpeOptions {
  bool bytes = true;                         ///< token texts are in the byte-to-character alphabet; else words are UTF-8
  bool ignore_merges = false;                ///< a word that is a token is that token
  std::optional<std::int32_t> unknown = {};  ///< for what has no token; without it that is dropped, as HF tokenizers does
  bool fuse_unknown = false;                 ///< one `unknown` for a run of what has none
  ByteTokens byte_tokens = {};               ///< for characters without a token, where `bytes` is false
};

/// Immutable but for a cache of words.
class Bpe final : public WordModel {
 public:
  /// `merges` are "left right" as token texts, best first; `ids` must outlive the constructor only. Throws BadFile, naming
  /// `origin`, for a merge that has not two parts, or whose parts or result `ids` does not have, or that comes twice.
  Bpe(const TokenIds& ids, const std::vector<std::string>& merges, const BpeOptions& options, const std::string& origin);

  /// `word`: any bytes, or UTF-8 where symbols are characters.
  void encode(std::string_view word, std::vector<std::int32_t>& out) const override;

 private:
  struct Merge {
    std::uint64_t pair = kNoPair;  // left id << 32 | right id
    std::int32_t rank = 0, result = 0;
  };
  struct StringHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  template <typename Value>
  using ByText = std::unordered_map<std::string, Value, StringHash, std::equal_to<>>;
  struct Shard {
    std::mutex mutex;
    ByText<std::vector<std::int32_t>> words;
  };
  static constexpr std::uint64_t kNoPair = ~std::uint64_t{0};
  static constexpr std::size_t kShards = 16;

  static std::size_t slot_of(std::uint64_t pair);
  void insert(const Merge& merge, const std::string& text, const std::string& origin);
  const Merge* find(std::int32_t left, std::int32_t right) const;
  void index_symbols(const TokenIds& ids);
  void first_symbols(std::string_view word, std::vector<std::int32_t>& ids) const;
  std::vector<std::int32_t> merge(std::string_view word) const;

  BpeOptions options_;
  ByteTokens byte_ids_;                                    // where symbols are bytes
  std::unordered_map<char32_t, std::int32_t> characters_;  // where they are characters
  std::vector<Merge> merges_;                              // open addressing, a power of two
  ByText<std::int32_t> words_;                             // what every token stands for; only with ignore_merges
  std::unique_ptr<std::array<Shard, kShards>> cache_;
};

}  // namespace temper::text
