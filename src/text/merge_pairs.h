// The merging of neighbours that every kind of byte-pair encoding shares.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <queue>
#include <vector>

namespace temper::text {

struct MergeSymbol {
  std::int32_t id;                    ///< -1 once merged into the symbol before
  std::int32_t previous, next;        ///< -1 at the ends
  std::uint32_t begin = 0, size = 0;  ///< of its text, where the lookup asks for it
};

struct PairMerge {
  std::int32_t rank, result;  ///< the lowest rank goes first
};

/// `ids` as a chain of symbols without texts.
inline std::vector<MergeSymbol> merge_symbols(const std::vector<std::int32_t>& ids) {
  std::vector<MergeSymbol> symbols;
  symbols.reserve(ids.size());
  const auto count = static_cast<std::int32_t>(ids.size());
  for (std::int32_t i = 0; i < count; ++i)
    symbols.push_back({ids[static_cast<std::size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1});
  return symbols;
}

/// Merges the best-ranked pair of neighbours until none is left, the leftmost first among equals. `lookup(left, right)`
/// gives an optional PairMerge; the id of what it makes differs from both parts'.
template <typename Lookup>
void merge_pairs(std::vector<MergeSymbol>& symbols, Lookup&& lookup) {
  // A pair that could be merged. It is stale once either symbol has changed.
  struct Candidate {
    std::int32_t rank, position, left, right, result;
    bool operator<(const Candidate& other) const {  // for a heap whose top is the best rank, leftmost
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  const auto at = [&symbols](std::int32_t i) -> MergeSymbol& { return symbols[static_cast<std::size_t>(i)]; };
  std::vector<Candidate> storage;
  storage.reserve(symbols.size());
  std::priority_queue<Candidate> queue(std::less<Candidate>{}, std::move(storage));
  const auto offer = [&](std::int32_t position) {
    const MergeSymbol& left = at(position);
    if (left.next < 0) return;
    const MergeSymbol& right = at(left.next);
    if (const auto found = lookup(left, right)) queue.push({found->rank, position, left.id, right.id, found->result});
  };
  for (std::int32_t i = 0; i + 1 < static_cast<std::int32_t>(symbols.size()); ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    MergeSymbol& left = at(best.position);
    if (left.id != best.left || left.next < 0 || at(left.next).id != best.right) continue;
    MergeSymbol& right = at(left.next);
    left.id = best.result;
    left.next = right.next;
    left.size += right.size;
    right.id = -1;
    if (left.next >= 0) at(left.next).previous = best.position;
    if (left.previous >= 0) offer(left.previous);
    offer(best.position);
  }
}

}  // namespace temper::text
