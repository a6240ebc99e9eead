// Added tokens: texts that are found in the input before anything else is done to it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace temper::text {

/// As in `added_tokens` of tokenizer.json.
struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool special = false;      ///< found only where special tokens are parsed; left out of decoded text on demand
  bool normalized = false;   ///< sought in the normalized text
  bool lstrip = false;       ///< takes the white space before it along
  bool rstrip = false;       ///< takes the white space after it along
  bool single_word = false;  ///< not next to a word character
};

/// Finds added tokens: leftmost first, the longest where several start at one place (as HF tokenizers does).
class AddedTokenMatcher {
 public:
  AddedTokenMatcher();
  /// `content`: what to look for, not empty. Of equal contents the last counts.
  void add(const AddedToken& token, std::string_view content);

  struct Piece {
    std::string_view text;
    std::int32_t id;  ///< -1 for text that is no added token
  };
  /// `text` cut at the tokens found. With `parse_special` false special tokens stay text.
  std::vector<Piece> split(std::string_view text, bool parse_special) const;

 private:
  struct Node {
    std::map<unsigned char, std::int32_t> next;
    std::int32_t token = -1;  // index into tokens_
  };
  struct Match {
    std::int32_t token = -1;
    std::size_t length = 0;
  };
  Match longest_at(std::string_view text) const;

  std::vector<Node> nodes_;
  std::vector<AddedToken> tokens_;
  std::array<bool, 256> starts_{};
};

}  // namespace temper::text
