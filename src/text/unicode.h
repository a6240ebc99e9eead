// UTF-8, normal forms, and the byte-to-character alphabet of byte-level tokenizers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace temper::text {

/// Appends code point `c` (a Unicode scalar value) as UTF-8.
void append_utf8(std::string& out, char32_t c);

/// One step of a UTF-8 reader. `length` bytes were read: a whole character if `ok`; otherwise a maximal ill-formed part, or,
/// with `unfinished`, the start of a character that the text ends within. `length` is at least 1 for a non-empty text.
struct Utf8Step {
  std::size_t length = 0;
  char32_t code_point = 0;
  bool ok = false;
  bool unfinished = false;
};
/// Reads the first character of a non-empty `text`.
Utf8Step read_utf8(std::string_view text);

bool is_valid_utf8(std::string_view text);
/// `text` with each maximal ill-formed part replaced by U+FFFD (Unicode standard, section 3.9; Python's errors="replace").
std::string replace_invalid_utf8(std::string_view text);

/// The last character of non-empty, valid `text`: its code point and first byte.
std::pair<char32_t, std::size_t> last_character(std::string_view text);
/// Bytes of white space (Unicode's White_Space) that valid `text` begins with.
std::size_t leading_space(std::string_view text);
/// Length of valid `text` without the white space at its end.
std::size_t without_trailing_space(std::string_view text);

/// `text` with every `from` (not empty), found from left to right, replaced by `to`.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

/// Turns a stream of tokens' bytes into whole characters: bytes of an unfinished character wait for the rest.
class Utf8Stream {
 public:
  /// The text that is complete after `bytes`; ill-formed parts come out as U+FFFD.
  std::string push(std::string_view bytes);
  /// What is left at the end: U+FFFD for an unfinished character, else nothing.
  std::string finish();

 private:
  std::string pending_;
};

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
/// `text` (valid UTF-8) in a Unicode normal form.
std::string normalize(std::string_view text, NormalForm form);

/// The alphabet of GPT-2's byte-level BPE: every byte is written as one printable character. Printable ASCII and Latin-1
/// characters stand for themselves, the other 68 bytes for U+0100 onwards, in order.
std::string bytes_to_alphabet(std::string_view bytes);
/// The bytes that `text` stands for, or nothing if it has a character outside the alphabet.
std::optional<std::string> alphabet_to_bytes(std::string_view text);

}  // namespace temper::text
