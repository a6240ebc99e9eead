// Byte-pair encoding of one word's bytes: the best-ranked pair of neighbours is merged until none is left, the leftmost
// first among equals (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909; on bytes: GPT-2).
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

namespace temper::text {

/// Token texts, in the byte-to-character alphabet, to ids.
using TokenIds = std::unordered_map<std::string_view, std::int32_t>;

struct BpeOptions {
  bool ignore_merges = false;           ///< a word that is a token is that token
  std::optional<std::int32_t> unknown;  ///< for bytes without a token; without it they are dropped, as HF tokenizers does
  bool fuse_unknown = false;            ///< one `unknown` for a run of such bytes
};

/// Immutable but for a cache of words; may be used from several threads at once.
class Bpe {
 public:
  /// `merges` are "left right" in the alphabet, best first; `ids` must outlive the constructor only. Throws BadFile, naming
  /// `origin`, for a merge that has not two parts, or whose parts or result `ids` does not have, or that comes twice.
  Bpe(const TokenIds& ids, const std::vector<std::string>& merges, const BpeOptions& options, const std::string& origin);

  /// Appends the ids of `word`, any bytes.
  void encode(std::string_view word, std::vector<std::int32_t>& out) const;

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
  void first_symbols(std::string_view word, std::vector<std::int32_t>& ids) const;
  std::vector<std::int32_t> merge(std::string_view word) const;

  BpeOptions options_;
  std::array<std::optional<std::int32_t>, 256> byte_ids_;
  std::vector<Merge> merges_;   // open addressing, a power of two
  ByText<std::int32_t> words_;  // bytes of every token; only with ignore_merges
  std::unique_ptr<std::array<Shard, kShards>> cache_;
};

}  // namespace temper::text
