#include "text/tokenizer_added.h"

#include <utf8proc.h>

#include <algorithm>

#include "text/unicode.h"

namespace temper::text {
namespace {

/// A word character (\w): letter, mark, decimal digit, connector.
bool is_word(char32_t c) {
  if (c == 0x200C || c == 0x200D) return true;  // joiners
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return false;
  }
}

bool ends_with_word(std::string_view text) { return !text.empty() && is_word(last_character(text).first); }
bool starts_with_word(std::string_view text) { return !text.empty() && is_word(read_utf8(text).code_point); }

}  // namespace

AddedTokenMatcher::AddedTokenMatcher() : nodes_(1) {}

void AddedTokenMatcher::add(const AddedToken& token, std::string_view content) {
  std::size_t node = 0;
  for (const char c : content) {
    const auto next = static_cast<std::int32_t>(nodes_.size());
    const auto [found, is_new] = nodes_[node].next.emplace(static_cast<unsigned char>(c), next);
    node = static_cast<std::size_t>(found->second);
    if (is_new) nodes_.emplace_back();
  }
  starts_[static_cast<unsigned char>(content.front())] = true;
  nodes_[node].token = static_cast<std::int32_t>(tokens_.size());
  tokens_.push_back(token);
}

AddedTokenMatcher::Match AddedTokenMatcher::longest_at(std::string_view text) const {
  Match best;
  std::size_t node = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto found = nodes_[node].next.find(static_cast<unsigned char>(text[i]));
    if (found == nodes_[node].next.end()) break;
    node = static_cast<std::size_t>(found->second);
    if (nodes_[node].token >= 0) best = {nodes_[node].token, i + 1};
  }
  return best;
}

std::vector<AddedTokenMatcher::Piece> AddedTokenMatcher::split(std::string_view text, bool parse_special) const {
  std::vector<Piece> pieces;
  std::size_t done = 0;
  for (std::size_t position = 0; position < text.size();) {
    if (!starts_[static_cast<unsigned char>(text[position])]) {
      ++position;
      continue;
    }
    const Match match = longest_at(text.substr(position));
    if (match.token < 0) {
      ++position;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(match.token)];
    std::size_t begin = position;
    std::size_t end = position + match.length;
    position = end;  // a match that does not count still hides what it covers
    if (token.special && !parse_special) continue;
    if (token.single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) continue;
    if (begin < done) continue;  // taken along by the token before
    if (token.lstrip) begin = std::max(done, without_trailing_space(text.substr(0, begin)));
    if (token.rstrip) end += leading_space(text.substr(end));
    if (begin > done) pieces.push_back({text.substr(done, begin - done), -1});
    pieces.push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done < text.size()) pieces.push_back({text.substr(done), -1});
  return pieces;
}

}  // namespace temper::text
