#include "text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "text/unicode.h"

namespace temper::text {
namespace {

struct Segment {
  std::size_t begin, end;
  bool match;
};

/// Members of Unicode's White_Space, as a list for a character class. PCRE2's own \s also has U+180E, which lost that
/// property.
constexpr std::string_view kSpaces =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

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
      if (next == 's') {
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

/// Cuts out the pieces that `behavior` asks for, given the whole text's segments in order.
void apply_behavior(std::vector<Segment> segments, SplitBehavior behavior, std::vector<Segment>& out) {
  const bool from_the_end = behavior == SplitBehavior::kMergedWithNext;
  if (from_the_end) std::reverse(segments.begin(), segments.end());
  bool previous_match = false;
  for (const Segment& segment : segments) {
    const bool merges =
        behavior == SplitBehavior::kContiguous
            ? segment.match == previous_match
            : (behavior == SplitBehavior::kMergedWithPrevious || from_the_end) && segment.match && !previous_match;
    if (behavior == SplitBehavior::kRemoved && segment.match) continue;
    if (merges && !out.empty()) {
      out.back().begin = std::min(out.back().begin, segment.begin);
      out.back().end = std::max(out.back().end, segment.end);
    } else {
      out.push_back(segment);
    }
    previous_match = segment.match;
  }
  if (from_the_end) std::reverse(out.begin(), out.end());
}

}  // namespace

/// A compiled pattern.
class PreTokenizer::Pattern {
 public:
  Pattern(std::string_view pattern, const std::string& origin) : source_(pattern) {
    const std::string translated = to_pcre2(pattern, origin);
    int error = 0;
    PCRE2_SIZE offset = 0;
    const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
        pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context.get(), 100);
    // Ruby's ^ and $ match at every line.
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                              context.get()));
    if (!code_) {
      PCRE2_UCHAR message[256] = {};
      pcre2_get_error_message(error, message, sizeof message);
      throw Unsupported("{}: pre-tokenizer pattern {}: {} at offset {}", origin, pattern,
                        reinterpret_cast<const char*>(message), offset);
    }
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // without it matching is slower, no less right
  }

  /// The text's segments: matches, and the gaps between them.
  std::vector<Segment> segments(std::string_view text, pcre2_match_data* match_data) const {
    std::vector<Segment> found;
    std::size_t start = 0;    // where to look
    std::size_t covered = 0;  // end of the last segment
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match_data);
    while (start <= text.size() && find(text, start, match_data)) {
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

 private:
  bool find(std::string_view text, std::size_t start, pcre2_match_data* match_data) const {
    const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    int result = pcre2_match(code_.get(), subject, text.size(), start, PCRE2_NO_UTF_CHECK, match_data, nullptr);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter keeps its state on the heap
      result = pcre2_match(code_.get(), subject, text.size(), start, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match_data, nullptr);
    }
    if (result >= 0) return true;
    if (result == PCRE2_ERROR_NOMATCH) return false;
    throw BadData("text of {} bytes: the pre-tokenizer pattern {} gave up (PCRE2 error {}) at byte {}", text.size(), source_,
                  result, start);
  }

  std::string source_;
  struct Free {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  std::unique_ptr<pcre2_code, Free> code_;
};

PreTokenizer::PreTokenizer(std::vector<PreTokenizerStep> steps, const std::string& origin) : steps_(std::move(steps)) {
  for (const PreTokenizerStep& step : steps_) {
    const bool split = step.kind == PreTokenizerStep::Kind::kSplit;
    patterns_.push_back(split ? std::make_unique<Pattern>(step.pattern, origin) : nullptr);
  }
}
PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;

PreTokenizer::Pieces PreTokenizer::cut(std::string_view text) const {
  Pieces pieces;
  if (text.empty()) return pieces;
  pieces.views.push_back(text);
  bool alphabet = false;
  for (std::size_t step = 0; step < steps_.size(); ++step) {
    apply(step, pieces);
    alphabet = alphabet || steps_[step].kind == PreTokenizerStep::Kind::kAlphabet;
  }
  if (alphabet) {
    for (std::string_view& piece : pieces.views) {
      pieces.owned.push_back(std::make_unique<std::string>(alphabet_to_bytes(piece).value()));
      piece = *pieces.owned.back();
    }
  }
  return pieces;
}

void PreTokenizer::apply(std::size_t step, Pieces& pieces) const {
  const PreTokenizerStep& what = steps_[step];
  if (what.kind != PreTokenizerStep::Kind::kSplit) {
    for (std::string_view& piece : pieces.views) {
      const bool space = what.kind == PreTokenizerStep::Kind::kPrefixSpace;
      if (space && piece.starts_with(' ')) continue;
      pieces.owned.push_back(std::make_unique<std::string>(space ? " " + std::string(piece) : bytes_to_alphabet(piece)));
      piece = *pieces.owned.back();
    }
    return;
  }
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match_data(pcre2_match_data_create(1, nullptr),
                                                                                       &pcre2_match_data_free);
  if (!match_data) throw std::bad_alloc();
  std::vector<std::string_view> views;
  views.reserve(pieces.views.size() * 2);
  std::vector<Segment> parts;
  for (const std::string_view piece : pieces.views) {
    std::vector<Segment> segments = patterns_[step]->segments(piece, match_data.get());
    if (what.invert) {
      for (Segment& segment : segments) segment.match = !segment.match;
    }
    parts.clear();
    if (what.behavior == SplitBehavior::kIsolated) {
      parts.swap(segments);
    } else {
      apply_behavior(std::move(segments), what.behavior, parts);
    }
    for (const Segment& part : parts) {
      if (part.end > part.begin) views.push_back(piece.substr(part.begin, part.end - part.begin));
    }
  }
  pieces.views = std::move(views);
}

}  // namespace temper::text
