#include "text/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <optional>

#include "base/error.h"
#include "text/jinja_strings.h"
#include "text/unicode.h"

namespace temper::text::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80) != 0; }
bool is_name_char(char c) { return is_name_start(c) || is_digit(c); }

/// Lines end in \n, and one line end at the very end is dropped, as Jinja does before it looks at anything.
std::string normalize_lines(std::string_view source) {
  std::string out;
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& name) : text_(normalize_lines(source)), name_(name) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) lex_data();
    push(TokenKind::End, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const { throw BadFile("{}, line {}: {}", name_, line_, message); }

  std::string_view rest() const { return std::string_view(text_).substr(at_); }
  bool looking_at(std::string_view s) const { return rest().starts_with(s); }

  void advance(std::size_t n) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         text_.begin() + static_cast<std::ptrdiff_t>(at_ + n), '\n'));
    at_ += n;
  }
  void skip_space() { advance(rest().size() - strip(rest(), Side::Left).size()); }
  void push(TokenKind kind, std::string_view text) { tokens_.push_back({kind, std::string(text), 0, 0, line_}); }

  /// Position of the next "{%", "{{" or "{#", or the end.
  std::size_t next_tag(std::size_t from) const {
    for (std::size_t p = text_.find('{', from); p != std::string::npos && p + 1 < text_.size(); p = text_.find('{', p + 1)) {
      if (text_[p + 1] == '%' || text_[p + 1] == '{' || text_[p + 1] == '#') return p;
    }
    return text_.size();
  }

  /// Text up to a tag, as the tag's sign and kind leave it. `line_start`: the text begins a line.
  static std::string_view trim_before_tag(std::string_view data, char sign, bool variable, bool line_start) {
    if (sign == '-') return strip(data, Side::Right);
    if (sign == '+' || variable) return data;
    const std::size_t newline = data.rfind('\n');
    const std::size_t begin = newline == data.npos ? 0 : newline + 1;
    const bool from_line_start = begin > 0 || line_start;
    return from_line_start && strip(data.substr(begin), Side::Left).empty() ? data.substr(0, begin) : data;
  }

  char sign_at(std::size_t p) const { return p < text_.size() && (text_[p] == '-' || text_[p] == '+') ? text_[p] : '\0'; }
  bool at_line_start() const { return at_ == 0 || text_[at_ - 1] == '\n'; }

  void lex_data() {
    const std::size_t tag = next_tag(at_);
    const std::string_view data = std::string_view(text_).substr(at_, tag - at_);
    const bool line_start = at_line_start();
    if (tag == text_.size()) {
      push(TokenKind::Data, data);
      at_ = tag;
      return;
    }
    const char kind = text_[tag + 1], sign = sign_at(tag + 2);
    const std::string_view kept = trim_before_tag(data, sign, kind == '{', line_start);
    if (!kept.empty()) push(TokenKind::Data, kept);
    advance(tag - at_ + 2 + (sign ? 1 : 0));
    if (kind == '#') {
      skip_comment();
    } else if (kind == '%' && begins_raw()) {
      lex_raw();
    } else {
      push(kind == '%' ? TokenKind::BlockBegin : TokenKind::VariableBegin, "");
      lex_tag(kind == '%');
    }
  }

  void skip_comment() {
    const std::size_t end = text_.find("#}", at_);
    if (end == std::string::npos) fail("a comment {# is not closed");
    const char sign = end > at_ ? sign_at(end - 1) : '\0';
    advance(end + 2 - at_);
    end_block(sign);
  }

  /// After a block or comment: white space ("-"), or one line end (trim_blocks), goes.
  void end_block(char sign) {
    if (sign == '-') {
      skip_space();
    } else if (sign != '+' && looking_at("\n")) {
      advance(1);
    }
  }

  /// The length of `  word  -%}` or `  word %}` at `p`, or nothing.
  std::optional<std::size_t> keyword_tag(std::size_t p, std::string_view word, char* sign) const {
    const auto skip = [&] { p = text_.size() - strip(std::string_view(text_).substr(p), Side::Left).size(); };
    skip();
    if (!std::string_view(text_).substr(p).starts_with(word)) return {};
    p += word.size();
    skip();
    *sign = sign_at(p);
    if (*sign) ++p;
    if (!std::string_view(text_).substr(p).starts_with("%}")) return {};
    return p + 2;
  }

  bool begins_raw() {
    char sign;
    return keyword_tag(at_, "raw", &sign).has_value();
  }

  void lex_raw() {
    char sign = 0;
    advance(*keyword_tag(at_, "raw", &sign) - at_);
    if (sign == '-') {
      skip_space();
    } else if (looking_at("\n")) {
      advance(1);
    }
    const bool line_start = at_line_start();
    for (std::size_t p = text_.find("{%", at_); p != std::string::npos; p = text_.find("{%", p + 1)) {
      const char begin_sign = sign_at(p + 2);
      char end_sign = 0;
      const auto end = keyword_tag(p + 2 + (begin_sign ? 1 : 0), "endraw", &end_sign);
      if (!end) continue;
      const std::string_view data = std::string_view(text_).substr(at_, p - at_);
      push(TokenKind::Data, trim_before_tag(data, begin_sign, false, line_start));
      advance(*end - at_);
      end_block(end_sign);
      return;
    }
    fail("{% raw %} is not closed by {% endraw %}");
  }

  /// The inside of a tag, up to and with its end.
  void lex_tag(bool block) {
    const std::string_view close = block ? "%}" : "}}";
    std::string open_brackets;
    while (true) {
      skip_space();
      if (at_ >= text_.size()) fail(block ? "{% is not closed by %}" : "{{ is not closed by }}");
      if (open_brackets.empty()) {
        const char sign = sign_at(at_);
        const bool signed_end = (sign == '-' || (sign == '+' && block)) && rest().substr(1).starts_with(close);
        if (signed_end || looking_at(close)) {
          push(block ? TokenKind::BlockEnd : TokenKind::VariableEnd, "");
          advance(signed_end ? 3 : 2);
          if (block) {
            end_block(signed_end ? sign : '\0');
          } else if (signed_end) {
            skip_space();
          }
          return;
        }
      }
      const char c = text_[at_];
      if (is_digit(c)) {
        lex_number();
      } else if (is_name_start(c)) {
        std::size_t n = 1;
        while (at_ + n < text_.size() && is_name_char(text_[at_ + n])) ++n;
        push(TokenKind::Name, rest().substr(0, n));
        advance(n);
      } else if (c == '\'' || c == '"') {
        lex_string(c);
      } else {
        lex_operator(open_brackets);
      }
    }
  }

  void lex_operator(std::string& open_brackets) {
    static constexpr std::array<std::string_view, 26> kOperators = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                                    "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                                    ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    const auto it = std::find_if(kOperators.begin(), kOperators.end(), [&](std::string_view op) { return looking_at(op); });
    if (it == kOperators.end()) fail(fmt::format("unexpected character '{}'", text_[at_]));
    const char c = (*it)[0];
    if (c == '(' || c == '[' || c == '{') open_brackets += c;
    if (c == ')' || c == ']' || c == '}') {
      const char opening = c == ')' ? '(' : c == ']' ? '[' : '{';
      if (open_brackets.empty() || open_brackets.back() != opening) fail(fmt::format("unexpected '{}'", c));
      open_brackets.pop_back();
    }
    push(TokenKind::Operator, *it);
    advance(it->size());
  }

  std::string digits(std::size_t& p, const auto& accept) const {
    std::string out;
    while (p < text_.size() && (accept(text_[p]) || (text_[p] == '_' && p + 1 < text_.size() && accept(text_[p + 1])))) {
      if (text_[p] != '_') out += text_[p];
      ++p;
    }
    return out;
  }

  void lex_number() {
    std::size_t p = at_;
    int base = 10;
    if (text_[p] == '0' && p + 1 < text_.size()) {
      const char x = static_cast<char>(text_[p + 1] | 0x20);
      base = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 10;
      if (base != 10) p += 2;
    }
    const auto hex = [](char c) { return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); };
    std::string number = base == 16 ? digits(p, hex) : digits(p, is_digit);
    bool is_float = false;
    if (base == 10 && at_ > 0 && text_[at_ - 1] != '.') {
      if (p + 1 < text_.size() && text_[p] == '.' && is_digit(text_[p + 1])) {
        is_float = true;
        number += '.' + digits(++p, is_digit);
      }
      std::size_t e = p;
      if (e < text_.size() && (text_[e] | 0x20) == 'e') {
        ++e;
        const char sign = sign_at(e);
        if (sign) ++e;
        if (e < text_.size() && is_digit(text_[e])) {
          is_float = true;
          number += 'e' + (sign ? std::string(1, sign) : "") + digits(e, is_digit);
          p = e;
        }
      }
    }
    push(is_float ? TokenKind::Float : TokenKind::Integer, number);
    if (is_float) {
      tokens_.back().number = std::strtod(number.c_str(), nullptr);
    } else {
      const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), tokens_.back().integer, base);
      if (error != std::errc() || end != number.data() + number.size()) fail("an integer that is none, or beyond 64 bits");
    }
    advance(p - at_);
  }

  void lex_string(char quote) {
    std::size_t p = at_ + 1;
    while (p < text_.size() && text_[p] != quote) p += text_[p] == '\\' ? 2 : 1;
    if (p >= text_.size()) fail("a string is not closed");
    push(TokenKind::String, unescape(std::string_view(text_).substr(at_ + 1, p - at_ - 1)));
    advance(p + 1 - at_);
  }

  /// Python's string escapes.
  std::string unescape(std::string_view s) const {
    std::string out;
    for (std::size_t i = 0; i < s.size(); ++i) {
      if (s[i] != '\\' || i + 1 >= s.size()) {
        out += s[i];
        continue;
      }
      static constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
      const char c = s[++i];
      if (c == '\n') continue;
      if (const std::size_t k = kFrom.find(c); k != kFrom.npos) {
        out += kTo[k];
      } else if (c == 'x' || c == 'u' || c == 'U') {
        append_code(out, s.substr(i + 1), c == 'x' ? 2 : c == 'u' ? 4 : 8, 16);
        i += c == 'x' ? 2 : c == 'u' ? 4 : 8;
      } else if (c >= '0' && c <= '7') {
        std::size_t n = 1;
        while (n < 3 && i + n < s.size() && s[i + n] >= '0' && s[i + n] <= '7') ++n;
        append_code(out, s.substr(i), n, 8);
        i += n - 1;
      } else {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  void append_code(std::string& out, std::string_view digits_text, std::size_t n, int base) const {
    unsigned value = 0;
    const std::string_view d = digits_text.substr(0, n);
    const auto [end, error] = std::from_chars(d.data(), d.data() + d.size(), value, base);
    if (d.size() != n || error != std::errc() || end != d.data() + n || value > 0x10FFFF ||
        (value >= 0xD800 && value < 0xE000)) {
      fail("a string has an escape that names no character");
    }
    append_utf8(out, value);
  }

  std::string text_;
  const std::string& name_;
  std::size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize_template(std::string_view source, const std::string& name) { return Lexer(source, name).run(); }

}  // namespace temper::text::jinja
