#include "text/bpe.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "text/merge_pairs.h"
#include "text/unicode.h"

namespace temper::text {
namespace {

constexpr std::size_t kMaxCachedWord = 128;     // bytes; longer words seldom come again
constexpr std::size_t kMaxCachedWords = 16384;  // per shard

}  // namespace

std::size_t Bpe::slot_of(std::uint64_t pair) {
  pair *= 0x9E3779B97F4A7C15ULL;  // Fibonacci hashing; the high bits are the good ones
  return static_cast<std::size_t>(pair ^ (pair >> 32));
}

Bpe::Bpe(const TokenIds& ids, const std::vector<std::string>& merges, const BpeOptions& options, const std::string& origin)
    : options_(options), cache_(std::make_unique<std::array<Shard, kShards>>()) {
  index_symbols(ids);
  merges_.resize(std::bit_ceil(merges.size() * 2 + 1));
  std::string result;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view text = merges[rank];
    const std::size_t space = text.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == text.size()) {
      throw BadFile("{}: merge {}: expected two parts with a space between them, found \"{}\"", origin, rank, text);
    }
    const auto id_of = [&](std::string_view part) {
      const auto found = ids.find(part);
      if (found == ids.end())
        throw BadFile("{}: merge {} \"{}\": \"{}\" is not in the vocabulary", origin, rank, text, part);
      return found->second;
    };
    const std::int32_t left = id_of(text.substr(0, space));
    const std::int32_t right = id_of(text.substr(space + 1));
    result.assign(text.substr(0, space)).append(text.substr(space + 1));
    const auto pair = static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint64_t>(right);
    insert({pair, static_cast<std::int32_t>(rank), id_of(result)}, merges[rank], origin);
  }
  if (options_.ignore_merges) {
    for (const auto& [text, id] : ids) {
      auto bytes = options_.bytes ? alphabet_to_bytes(text) : std::string(text);
      if (bytes) words_.emplace(*std::move(bytes), id);
    }
  }
}

void Bpe::index_symbols(const TokenIds& ids) {
  for (unsigned b = 0; options_.bytes && b < 256; ++b) {
    const char byte = static_cast<char>(static_cast<unsigned char>(b));
    if (const auto found = ids.find(bytes_to_alphabet({&byte, 1})); found != ids.end()) byte_ids_[b] = found->second;
  }
  if (options_.bytes) return;
  for (const auto& [text, id] : ids) {
    if (text.empty()) continue;
    const Utf8Step step = read_utf8(text);
    if (step.ok && step.length == text.size()) characters_.emplace(step.code_point, id);
  }
}

void Bpe::insert(const Merge& merge, const std::string& text, const std::string& origin) {
  const std::size_t mask = merges_.size() - 1;
  std::size_t slot = slot_of(merge.pair) & mask;
  while (merges_[slot].pair != kNoPair) {
    if (merges_[slot].pair == merge.pair) {
      throw BadFile("{}: merge {} \"{}\": the same as merge {}", origin, merge.rank, text, merges_[slot].rank);
    }
    slot = (slot + 1) & mask;
  }
  merges_[slot] = merge;
}

const Bpe::Merge* Bpe::find(std::int32_t left, std::int32_t right) const {
  const auto pair = static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint64_t>(right);
  const std::size_t mask = merges_.size() - 1;
  for (std::size_t slot = slot_of(pair) & mask;; slot = (slot + 1) & mask) {
    if (merges_[slot].pair == pair) return &merges_[slot];
    if (merges_[slot].pair == kNoPair) return nullptr;
  }
}

void Bpe::first_symbols(std::string_view word, std::vector<std::int32_t>& ids) const {
  bool after_unknown = false;
  for (std::size_t i = 0, length = 1; i < word.size(); i += length) {
    std::optional<std::int32_t> id;
    if (options_.bytes) {
      id = byte_ids_[static_cast<unsigned char>(word[i])];
    } else {
      const Utf8Step step = read_utf8(word.substr(i));
      length = step.length;
      if (const auto found = characters_.find(step.code_point); found != characters_.end()) id = found->second;
      if (!id && append_bytes(options_.byte_tokens, word.substr(i, length), ids)) {
        after_unknown = false;
        continue;
      }
    }
    if (id) {
      ids.push_back(*id);
    } else if (options_.unknown && !(options_.fuse_unknown && after_unknown)) {
      ids.push_back(*options_.unknown);
    }
    after_unknown = !id;
  }
}

std::vector<std::int32_t> Bpe::merge(std::string_view word) const {
  std::vector<std::int32_t> ids;
  first_symbols(word, ids);
  std::vector<MergeSymbol> symbols = merge_symbols(ids);
  merge_pairs(symbols, [this](const MergeSymbol& left, const MergeSymbol& right) -> std::optional<PairMerge> {
    const Merge* found = find(left.id, right.id);
    return found != nullptr ? std::optional(PairMerge{found->rank, found->result}) : std::nullopt;
  });
  ids.clear();
  for (const MergeSymbol& symbol : symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
  return ids;
}

void Bpe::encode(std::string_view word, std::vector<std::int32_t>& out) const {
  const auto append = [&out](const std::vector<std::int32_t>& ids) { out.insert(out.end(), ids.begin(), ids.end()); };
  if (options_.ignore_merges) {
    if (const auto found = words_.find(word); found != words_.end()) return out.push_back(found->second);
  }
  if (word.size() == 1) return first_symbols(word, out);
  if (word.size() > kMaxCachedWord) return append(merge(word));
  Shard& shard = (*cache_)[std::hash<std::string_view>{}(word) % kShards];
  {
    const std::lock_guard lock(shard.mutex);
    if (const auto found = shard.words.find(word); found != shard.words.end()) return append(found->second);
  }
  std::vector<std::int32_t> ids = merge(word);
  append(ids);
  const std::lock_guard lock(shard.mutex);
  if (shard.words.size() >= kMaxCachedWords) shard.words.clear();
  shard.words.emplace(word, std::move(ids));
}

}  // namespace temper::text
