#include "text/jinja_strings.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstring>

#include "text/unicode.h"

namespace temper::text::jinja {
namespace {

/// The character at the front of a non-empty text; ill-formed bytes read as U+FFFD, one at a time.
Utf8Step step(std::string_view text) {
  Utf8Step s = read_utf8(text);
  if (!s.ok) s = {1, 0xFFFD, false, false};
  return s;
}

/// Start of the last character of a non-empty text.
std::size_t last_start(std::string_view text) {
  std::size_t i = text.size() - 1;
  while (i > 0 && text.size() - i < 4 && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) --i;
  return step(text.substr(i)).length == text.size() - i ? i : text.size() - 1;
}

template <typename F>
void each_code_point(std::string_view text, F&& f) {
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step s = step(text.substr(i));
    f(s.code_point, i, s.length);
    i += s.length;
  }
}

bool is_line_end(char32_t c) {
  return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }
bool is_letter(char32_t c) {
  const auto k = category(c);
  return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}
bool is_cased_letter(char32_t c) {
  const auto k = category(c);
  return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}
char32_t to_upper(char32_t c) { return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))); }
char32_t to_lower(char32_t c) { return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))); }
char32_t to_title(char32_t c) { return static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))); }

void append_upper(std::string& out, char32_t c) {
  if (c == 0xDF) {
    out += "SS";  // the one common letter whose capital is two
  } else {
    append_utf8(out, to_upper(c));
  }
}

}  // namespace

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::vector<std::size_t> code_point_offsets(std::string_view text) {
  std::vector<std::size_t> offsets;
  offsets.reserve(text.size() + 1);
  each_code_point(text, [&](char32_t, std::size_t at, std::size_t) { offsets.push_back(at); });
  offsets.push_back(text.size());
  return offsets;
}

std::int64_t count_code_points(std::string_view text) {
  std::int64_t n = 0;
  each_code_point(text, [&](char32_t, std::size_t, std::size_t) { ++n; });
  return n;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> characters) {
  std::vector<char32_t> set;
  if (characters) each_code_point(*characters, [&](char32_t c, std::size_t, std::size_t) { set.push_back(c); });
  const auto drop = [&](char32_t c) { return characters ? std::find(set.begin(), set.end(), c) != set.end() : is_space(c); };
  if (static_cast<int>(side) & static_cast<int>(Side::Left)) {
    while (!text.empty()) {
      const Utf8Step s = step(text);
      if (!drop(s.code_point)) break;
      text.remove_prefix(s.length);
    }
  }
  if (static_cast<int>(side) & static_cast<int>(Side::Right)) {
    while (!text.empty()) {
      const std::size_t at = last_start(text);
      if (!drop(step(text.substr(at)).code_point)) break;
      text = text.substr(0, at);
    }
  }
  return text;
}

std::size_t find(std::string_view text, std::string_view needle, std::size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  const void* hit = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return hit ? static_cast<std::size_t>(static_cast<const char*>(hit) - text.data()) : std::string_view::npos;
}

namespace {

std::vector<std::string_view> split_on_space(std::string_view text, std::int64_t limit, bool from_right) {
  std::vector<std::string_view> parts;
  text = strip(text, from_right ? Side::Right : Side::Left);
  while (!text.empty()) {
    if (limit >= 0 && static_cast<std::int64_t>(parts.size()) == limit) {
      parts.push_back(text);
      break;
    }
    std::size_t cut = from_right ? text.size() : 0;
    while (from_right ? cut > 0 : cut < text.size()) {
      const std::size_t at = from_right ? last_start(text.substr(0, cut)) : cut;
      const Utf8Step s = step(text.substr(at));
      if (is_space(s.code_point)) break;
      cut = from_right ? at : at + s.length;
    }
    parts.push_back(from_right ? text.substr(cut) : text.substr(0, cut));
    text = from_right ? strip(text.substr(0, cut), Side::Right) : strip(text.substr(cut), Side::Left);
  }
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

std::vector<std::string_view> split(std::string_view text, std::optional<std::string_view> separator, std::int64_t limit,
                                    bool from_right) {
  if (!separator) return split_on_space(text, limit, from_right);
  std::vector<std::string_view> parts;
  const auto more = [&] { return limit < 0 || static_cast<std::int64_t>(parts.size()) < limit; };
  if (from_right) {
    for (std::size_t at; more() && (at = text.rfind(*separator)) != std::string_view::npos; text = text.substr(0, at)) {
      parts.push_back(text.substr(at + separator->size()));
    }
    parts.push_back(text);
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  for (std::size_t at; more() && (at = find(text, *separator)) != std::string_view::npos;) {
    parts.push_back(text.substr(0, at));
    text.remove_prefix(at + separator->size());
  }
  parts.push_back(text);
  return parts;
}

std::vector<std::string_view> splitlines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Step s = step(text.substr(i));
    std::size_t next = i + s.length;
    if (is_line_end(s.code_point)) {
      if (s.code_point == '\r' && next < text.size() && text[next] == '\n') ++next;
      lines.push_back(text.substr(begin, (keep_ends ? next : i) - begin));
      begin = next;
    }
    i = next;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::string replace(std::string_view text, std::string_view from, std::string_view to, std::int64_t limit) {
  std::string out;
  if (from.empty()) {  // Python puts `to` before each character and at the end
    std::int64_t n = 0;
    each_code_point(text, [&](char32_t, std::size_t at, std::size_t length) {
      if (limit < 0 || n++ < limit) out += to;
      out += text.substr(at, length);
    });
    if (limit < 0 || n < limit) out += to;
    return out;
  }
  for (std::int64_t n = 0; limit < 0 || n < limit; ++n) {
    const std::size_t at = find(text, from);
    if (at == std::string_view::npos) break;
    out += text.substr(0, at);
    out += to;
    text.remove_prefix(at + from.size());
  }
  out += text;
  return out;
}

std::string upper(std::string_view text) {
  std::string out;
  each_code_point(text, [&](char32_t c, std::size_t, std::size_t) { append_upper(out, c); });
  return out;
}

std::string lower(std::string_view text) {
  std::string out;
  each_code_point(text, [&](char32_t c, std::size_t, std::size_t) { append_utf8(out, to_lower(c)); });
  return out;
}

std::string capitalize(std::string_view text) {
  std::string out;
  each_code_point(text,
                  [&](char32_t c, std::size_t at, std::size_t) { append_utf8(out, at == 0 ? to_title(c) : to_lower(c)); });
  return out;
}

std::string title(std::string_view text) {
  std::string out;
  bool in_word = false;
  each_code_point(text, [&](char32_t c, std::size_t, std::size_t) {
    append_utf8(out, in_word ? to_lower(c) : to_title(c));
    in_word = is_cased_letter(c);
  });
  return out;
}

bool is_cased(std::string_view text, bool upper_case) {
  bool any = false, all = true;
  each_code_point(text, [&](char32_t c, std::size_t, std::size_t) {
    if (!is_cased_letter(c)) return;
    any = true;
    all = all && category(c) == (upper_case ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
  });
  return any && all;
}

bool all_of_class(std::string_view text, char test) {
  bool all = !text.empty();
  each_code_point(text, [&](char32_t c, std::size_t, std::size_t) {
    const bool digit = category(c) == UTF8PROC_CATEGORY_ND;
    const bool number = digit || category(c) == UTF8PROC_CATEGORY_NL || category(c) == UTF8PROC_CATEGORY_NO;
    switch (test) {
      case 'd': all = all && digit; break;
      case 'a': all = all && is_letter(c); break;
      case 'n': all = all && (is_letter(c) || number); break;
      default: all = all && is_space(c);
    }
  });
  return all;
}

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
  }
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '\'': out += "&#39;"; break;
      case '"': out += "&#34;"; break;
      default: out += c;
    }
  }
  return out;
}

}  // namespace temper::text::jinja
