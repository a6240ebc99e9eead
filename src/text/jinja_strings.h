// Python's str methods on UTF-8: indices and lengths count code points, white space is Unicode's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace temper::text::jinja {

/// Byte offset of each code point, and the text's size at the end. Ill-formed bytes count as one code point each.
std::vector<std::size_t> code_point_offsets(std::string_view text);
std::int64_t count_code_points(std::string_view text);
bool is_ascii(std::string_view text);
/// str.isspace of one character.
bool is_space(char32_t c);

enum class Side { Left = 1, Right = 2, Both = 3 };
/// str.strip, lstrip, rstrip; without `characters`, white space.
std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> characters = {});
/// str.split / rsplit. Without a separator, runs of white space, and no empty parts. `limit` < 0: no limit.
/// The separator is not empty.
std::vector<std::string_view> split(std::string_view text, std::optional<std::string_view> separator, std::int64_t limit,
                                    bool from_right = false);
std::vector<std::string_view> splitlines(std::string_view text, bool keep_ends = false);
/// str.replace; `limit` < 0: all.
std::string replace(std::string_view text, std::string_view from, std::string_view to, std::int64_t limit = -1);
/// Position in bytes of the first occurrence at or after `from`, in linear time; npos if there is none.
std::size_t find(std::string_view text, std::string_view needle, std::size_t from = 0);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
/// First character upper, the others lower.
std::string capitalize(std::string_view text);
/// str.title.
std::string title(std::string_view text);
/// Whether all letters are upper (lower) and there is one.
bool is_cased(std::string_view text, bool upper_case);
/// str.isdigit, isalpha, isalnum, isspace by `test` ('d', 'a', 'n', 's'); false for an empty text.
bool all_of_class(std::string_view text, char test);

/// Whether Python's repr prints the character as it is.
bool is_printable(char32_t c);
/// HTML escapes of & < > ' ".
std::string escape_html(std::string_view text);

}  // namespace temper::text::jinja
