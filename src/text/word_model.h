// What turns one word into token ids, once a tokenizer has normalized a text and cut it into words.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace temper::text {

/// Token texts to ids.
using TokenIds = std::unordered_map<std::string_view, std::int32_t>;

/// The tokens that stand for single bytes where a character has none of its own (SentencePiece's "byte fallback").
using ByteTokens = std::array<std::optional<std::int32_t>, 256>;

/// May be used from several threads at once.
class WordModel {
 public:
  WordModel() = default;
  WordModel(const WordModel&) = delete;
  WordModel& operator=(const WordModel&) = delete;
  virtual ~WordModel() = default;

  /// Appends the ids of `word`.
  virtual void encode(std::string_view word, std::vector<std::int32_t>& out) const = 0;
};

/// Appends the byte tokens of `text`; false, and nothing appended, unless each of its bytes has one.
inline bool append_bytes(const ByteTokens& tokens, std::string_view text, std::vector<std::int32_t>& out) {
  for (const char c : text) {
    if (!tokens[static_cast<unsigned char>(c)]) return false;
  }
  for (const char c : text) out.push_back(*tokens[static_cast<unsigned char>(c)]);
  return true;
}

}  // namespace temper::text
