#include "text/scored_bpe.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "base/error.h"
#include "text/merge_pairs.h"
#include "text/unicode.h"

namespace temper::text {
namespace {

constexpr std::int32_t kNoToken = -2;  // -1 is a symbol that was merged

}  // namespace

ScoredBpe::ScoredBpe(const TokenIds& ids, const std::vector<float>& scores, const ByteTokens& bytes,
                     std::optional<std::int32_t> unknown)
    : bytes_(bytes), unknown_(unknown) {
  std::vector<float> order;
  order.reserve(ids.size());
  for (const auto& [text, id] : ids) order.push_back(scores[static_cast<std::size_t>(id)]);
  std::ranges::sort(order, std::greater<>());
  order.erase(std::unique(order.begin(), order.end()), order.end());
  tokens_.reserve(ids.size());
  for (const auto& [text, id] : ids) {
    const auto place = std::ranges::lower_bound(order, scores[static_cast<std::size_t>(id)], std::greater<>());
    tokens_.emplace(text, Token{id, static_cast<std::int32_t>(place - order.begin())});
    longest_ = std::max(longest_, text.size());
  }
}

const ScoredBpe::Token* ScoredBpe::find(std::string_view text) const {
  if (text.size() > longest_) return nullptr;
  const auto found = tokens_.find(text);
  return found == tokens_.end() ? nullptr : &found->second;
}

void ScoredBpe::encode(std::string_view word, std::vector<std::int32_t>& out) const {
  if (word.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    throw BadData("text of {} bytes: expected at most 2 GiB without an added token in it", word.size());
  }
  std::vector<MergeSymbol> symbols;
  symbols.reserve(word.size());
  for (std::size_t i = 0; i < word.size();) {
    const std::size_t length = read_utf8(word.substr(i)).length;
    const Token* token = find(word.substr(i, length));
    const auto index = static_cast<std::int32_t>(symbols.size());
    symbols.push_back({token != nullptr ? token->id : kNoToken, index - 1, i + length < word.size() ? index + 1 : -1,
                       static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(length)});
    i += length;
  }
  merge_pairs(symbols, [&](const MergeSymbol& left, const MergeSymbol& right) -> std::optional<PairMerge> {
    const Token* found = find(word.substr(left.begin, left.size + right.size));
    return found != nullptr ? std::optional(PairMerge{found->rank, found->id}) : std::nullopt;
  });
  bool after_unknown = false;
  for (const MergeSymbol& symbol : symbols) {
    if (symbol.id == -1) continue;
    const bool known = symbol.id >= 0 || append_bytes(bytes_, word.substr(symbol.begin, symbol.size), out);
    if (symbol.id >= 0) {
      out.push_back(symbol.id);
    } else if (!known && unknown_ && !after_unknown) {
      out.push_back(*unknown_);
    }
    after_unknown = !known;
  }
}

}  // namespace temper::text
