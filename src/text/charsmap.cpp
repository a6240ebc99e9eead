#include "text/charsmap.h"

#include <utf8proc.h>

#include <cstring>

#include "base/error.h"
#include "text/unicode.h"

namespace temper::text {
namespace {

constexpr std::size_t kHeader = sizeof(std::uint32_t);
constexpr std::size_t kWholeGrapheme = 6;  // bytes from which on HF tokenizers looks at single characters only

// A unit of the double array: value of a leaf, or offset to the children, a flag for "has a leaf", and the label.
std::uint32_t offset_of(std::uint32_t unit) { return (unit >> 10) << ((unit & (1U << 9)) >> 6); }
std::uint32_t label_of(std::uint32_t unit) { return unit & ((1U << 31) | 0xFFU); }
bool has_leaf(std::uint32_t unit) { return ((unit >> 8) & 1U) != 0; }
std::uint32_t value_of(std::uint32_t unit) { return unit & ((1U << 31) - 1); }

/// Length of the grapheme (Unicode standard annex 29) that non-empty, valid `text` begins with.
std::size_t grapheme_length(std::string_view text) {
  utf8proc_int32_t state = 0;
  Utf8Step step = read_utf8(text);
  std::size_t length = step.length;
  while (length < text.size()) {
    const Utf8Step next = read_utf8(text.substr(length));
    if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(step.code_point),
                                         static_cast<utf8proc_int32_t>(next.code_point), &state)) {
      break;
    }
    length += next.length;
    step = next;
  }
  return length;
}

}  // namespace

CharsMap::CharsMap(std::string blob, const std::string& origin) : blob_(std::move(blob)) {
  std::uint32_t bytes = 0;
  if (blob_.size() >= kHeader) std::memcpy(&bytes, blob_.data(), kHeader);
  if (blob_.size() < kHeader || bytes % sizeof(std::uint32_t) != 0 || bytes > blob_.size() - kHeader) {
    throw BadFile("{}: precompiled character map: expected a trie within its {} bytes, found one of {}", origin,
                  blob_.size(), bytes);
  }
  units_.resize(bytes / sizeof(std::uint32_t));
  if (bytes > 0) std::memcpy(units_.data(), blob_.data() + kHeader, bytes);
  replacements_ = blob_.substr(kHeader + bytes);
  replacements_.push_back('\0');
  if (!is_valid_utf8(replacements_)) throw BadFile("{}: precompiled character map: its replacements are no UTF-8", origin);
}

/// Zero, which is no child of anything, outside the array.
std::uint32_t CharsMap::unit(std::uint64_t index) const {
  return index < units_.size() ? units_[static_cast<std::size_t>(index)] : 0;
}

CharsMap::Match CharsMap::match(std::string_view text, bool longest) const {
  Match best;
  std::uint64_t node = offset_of(unit(0));
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == 0) break;  // the label of leaves
    node ^= byte;
    const std::uint32_t at = unit(node);
    if (label_of(at) != byte) break;
    node ^= offset_of(at);
    if (!has_leaf(at)) continue;
    best = {i + 1, value_of(unit(node))};
    if (!longest) break;
  }
  // A rule that ends within a character, or points nowhere, is none of SentencePiece's.
  const bool whole = best.length == text.size() ||
                     (best.length < text.size() && (static_cast<unsigned char>(text[best.length]) & 0xC0U) != 0x80U);
  const bool inside = best.replacement < replacements_.size() &&
                      (static_cast<unsigned char>(replacements_[best.replacement]) & 0xC0U) != 0x80U;
  return whole && inside ? best : Match{};
}

std::string_view CharsMap::replacement(std::uint32_t offset) const {
  const std::string_view rest = std::string_view(replacements_).substr(offset);
  return rest.substr(0, rest.find('\0'));
}

void CharsMap::append_grapheme(std::string_view grapheme, std::string& out) const {
  if (grapheme.size() < kWholeGrapheme) {
    if (const Match found = match(grapheme, false); found.length > 0) {
      out.append(replacement(found.replacement));  // for all of it, though the rule may end earlier
      return;
    }
  }
  for (std::size_t done = 0; done < grapheme.size();) {
    const std::string_view character = grapheme.substr(done, read_utf8(grapheme.substr(done)).length);
    const Match found = match(character, false);
    out.append(found.length > 0 ? replacement(found.replacement) : character);
    done += character.size();
  }
}

std::string CharsMap::apply(std::string_view text, Search search) const {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    std::size_t taken = 0;
    if (search == Search::kGrapheme) {
      taken = grapheme_length(text);
      append_grapheme(text.substr(0, taken), out);
    } else if (const Match found = match(text, true); found.length > 0) {
      taken = found.length;
      out.append(replacement(found.replacement));
    } else {
      taken = read_utf8(text).length;
      out.append(text.substr(0, taken));
    }
    text.remove_prefix(taken);
  }
  return out;
}

}  // namespace temper::text
