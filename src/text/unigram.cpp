#include "text/unigram.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "text/unicode.h"

namespace temper::text {
namespace {

constexpr double kUnknownPenalty = 10.0;  // SentencePiece's
constexpr std::int32_t kUnknownPiece = -1;

/// The best way to a place in the word.
struct Best {
  double score = -std::numeric_limits<double>::infinity();
  std::size_t begin = 0;  // of the last token
  std::int32_t token = kUnknownPiece;
};

}  // namespace

Unigram::Unigram(const TokenIds& ids, const std::vector<double>& scores, double lowest, const ByteTokens& bytes,
                 std::int32_t unknown)
    : scores_(scores), unknown_score_(lowest - kUnknownPenalty), bytes_(bytes), unknown_(unknown) {
  build({ids.begin(), ids.end()});
}

void Unigram::build(std::vector<std::pair<std::string_view, std::int32_t>> tokens) {
  std::ranges::sort(tokens);
  struct Range {
    std::size_t node, begin, end, depth;
  };
  nodes_.emplace_back();
  std::vector<Range> level = {{0, 0, tokens.size(), 0}};
  for (std::vector<Range> next; !level.empty(); level.swap(next), next.clear()) {
    for (const Range& range : level) {
      std::size_t begin = range.begin;
      if (begin < range.end && tokens[begin].first.size() == range.depth) nodes_[range.node].token = tokens[begin++].second;
      nodes_[range.node].first_child = static_cast<std::uint32_t>(nodes_.size());
      while (begin < range.end) {
        const auto label = static_cast<unsigned char>(tokens[begin].first[range.depth]);
        std::size_t end = begin + 1;
        while (end < range.end && static_cast<unsigned char>(tokens[end].first[range.depth]) == label) ++end;
        next.push_back({nodes_.size(), begin, end, range.depth + 1});
        nodes_.push_back({.label = label});
        ++nodes_[range.node].children;
        begin = end;
      }
    }
  }
}

const Unigram::Node* Unigram::child(const Node& node, unsigned char label) const {
  const auto begin = nodes_.begin() + node.first_child;
  const auto end = begin + node.children;
  const auto found = std::lower_bound(begin, end, label, [](const Node& n, unsigned char l) { return n.label < l; });
  return found != end && found->label == label ? &*found : nullptr;
}

void Unigram::encode(std::string_view word, std::vector<std::int32_t>& out) const {
  std::vector<Best> best(word.size() + 1);
  best[0].score = 0;
  const auto offer = [&](std::size_t begin, std::size_t end, std::int32_t token, double score) {
    if (score > best[end].score) best[end] = {score, begin, token};
  };
  for (std::size_t begin = 0, length = 0; begin < word.size(); begin += length) {
    length = read_utf8(word.substr(begin)).length;
    const double here = best[begin].score;
    bool character = false;  // is a token
    const Node* node = nodes_.data();
    for (std::size_t end = begin; end < word.size();) {
      node = child(*node, static_cast<unsigned char>(word[end++]));
      if (node == nullptr) break;
      if (node->token < 0) continue;
      character = character || end == begin + length;
      const bool unknown = node->token == unknown_;
      offer(begin, end, unknown ? kUnknownPiece : node->token, here + scores_[static_cast<std::size_t>(node->token)]);
    }
    if (!character) offer(begin, begin + length, kUnknownPiece, here + unknown_score_);
  }
  std::vector<std::size_t> ends;
  for (std::size_t end = word.size(); end > 0; end = best[end].begin) ends.push_back(end);
  bool after_unknown = false;
  for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
    const Best& piece = best[*end];
    const bool known =
        piece.token != kUnknownPiece || append_bytes(bytes_, word.substr(piece.begin, *end - piece.begin), out);
    if (piece.token != kUnknownPiece) {
      out.push_back(piece.token);
    } else if (!known && !after_unknown) {
      out.push_back(unknown_);
    }
    after_unknown = !known;
  }
}

}  // namespace temper::text
