#include "text/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <new>

#include "base/error.h"
#include "text/unicode.h"

namespace temper::text {
namespace {

/// Members of Unicode's White_Space, as a list for a character class. PCRE2's own \s also has U+180E, which lost that
/// property.
constexpr std::string_view kSpaces =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

/// Four hexadecimal digits.
bool is_hex(std::string_view digits) {
  return digits.size() == 4 && digits.find_first_not_of("0123456789abcdefABCDEF") == std::string_view::npos;
}

/// Rewrites a pattern in Oniguruma's Ruby syntax to mean the same in PCRE2.
std::string to_pcre2(std::string_view pattern, const std::string& origin) {
  const auto refuse = [&](std::string_view what) {
    throw Unsupported("{}: pre-tokenizer pattern {}: {} is not supported", origin, pattern, what);
  };
  constexpr std::size_t kOutside = std::string_view::npos;
  std::string out;
  std::size_t class_begin = kOutside;  // first place in the open character class where ']' closes it
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    const char next = i + 1 < pattern.size() ? pattern[i + 1] : '\0';
    const bool inside = class_begin != kOutside;
    if (c == '\\') {
      ++i;
      if (next == 'h' || next == 'H') refuse("\\h");  // a hexadecimal digit in the one syntax, a blank in the other
      if (next == 'u' && is_hex(pattern.substr(i + 1, 4))) {
        out.append("\\x{").append(pattern.substr(i + 1, 4)).append("}");
        i += 4;
      } else if (next == 's') {
        out += inside ? std::string(kSpaces) : "[" + std::string(kSpaces) + "]";
      } else if (next == 'S' && !inside) {
        out += "[^" + std::string(kSpaces) + "]";
      } else {
        out.append(pattern.substr(i - 1, 2));
      }
      continue;
    }
    out.push_back(c);
    if (inside) {
      if (c == '[') refuse("a character class within another");
      if (c == '&' && next == '&') refuse("an intersection of character classes");
      if (c == ']' && i >= class_begin) class_begin = kOutside;
    } else if (c == '[') {
      class_begin = i + (next == '^' ? 3 : 2);
    }
  }
  return out;
}

}  // namespace

struct Pattern::Code {
  explicit Code(pcre2_code* compiled) : code(compiled, &pcre2_code_free) {}
  std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> code;
};

struct Pattern::Scratch::State {
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data{pcre2_match_data_create(1, nullptr),
                                                                           &pcre2_match_data_free};
};

Pattern::Scratch::Scratch() : state_(std::make_unique<State>()) {
  if (!state_->data) throw std::bad_alloc();
}
Pattern::Scratch::~Scratch() = default;

Pattern::Pattern(std::string_view pattern, const std::string& origin) : source_(pattern) {
  const std::string translated = to_pcre2(pattern, origin);
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  // Ruby's ^ and $ match at every line.
  code_ = std::make_unique<Code>(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                               PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                                               &offset, context.get()));
  if (!code_->code) {
    PCRE2_UCHAR message[256] = {};
    pcre2_get_error_message(error, message, sizeof message);
    throw Unsupported("{}: pattern {}: {} at offset {}", origin, pattern, reinterpret_cast<const char*>(message), offset);
  }
  pcre2_jit_compile(code_->code.get(), PCRE2_JIT_COMPLETE);  // without it matching is slower, no less right
}
Pattern::~Pattern() = default;
Pattern::Pattern(Pattern&&) noexcept = default;
Pattern& Pattern::operator=(Pattern&&) noexcept = default;

std::vector<Pattern::Segment> Pattern::segments(std::string_view text, Scratch& scratch) const {
  std::vector<Segment> found;
  std::size_t start = 0;    // where to look
  std::size_t covered = 0;  // end of the last segment
  const PCRE2_SIZE* range = pcre2_get_ovector_pointer(scratch.state_->data.get());
  while (start <= text.size() && find(text, start, scratch)) {
    const std::size_t begin = range[0];
    const std::size_t end = std::max<std::size_t>(range[1], begin);
    if (begin > covered) found.push_back({covered, begin, false});
    found.push_back({begin, end, true});
    covered = end;
    start = end;
    if (begin == end) start += end < text.size() ? read_utf8(text.substr(end)).length : 1;
  }
  if (covered < text.size()) found.push_back({covered, text.size(), false});
  return found;
}

bool Pattern::find(std::string_view text, std::size_t start, Scratch& scratch) const {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const auto match = [&](std::uint32_t options) {
    return pcre2_match(code_->code.get(), subject, text.size(), start, PCRE2_NO_UTF_CHECK | options,
                       scratch.state_->data.get(), nullptr);
  };
  int result = match(0);
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);  // the interpreter keeps its state on the heap
  if (result >= 0) return true;
  if (result == PCRE2_ERROR_NOMATCH) return false;
  throw BadData("text of {} bytes: the tokenizer's pattern {} gave up (PCRE2 error {}) at byte {}", text.size(), source_,
                result, start);
}

std::string escaped_pattern(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (static_cast<unsigned char>(c) & 0x80U) != 0 || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
                       (c >= 'a' && c <= 'z') || c == '\n' || c == '\r' || c == '\t';
    if (!plain) out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

}  // namespace temper::text
