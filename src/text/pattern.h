// Regular expressions of tokenizer.json, in Oniguruma's Ruby syntax, matched by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace temper::text {

/// A compiled pattern. Immutable; may be used from several threads at once.
class Pattern {
 public:
  /// Throws Unsupported for a pattern that PCRE2 does not read as Oniguruma would, naming `origin`.
  Pattern(std::string_view pattern, const std::string& origin);
  ~Pattern();
  Pattern(Pattern&&) noexcept;
  Pattern& operator=(Pattern&&) noexcept;

  struct Segment {
    std::size_t begin, end;
    bool match;
  };
  /// Where one search keeps its state: one for each thread, for as many texts as one likes.
  class Scratch {
   public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

   private:
    friend class Pattern;
    struct State;
    std::unique_ptr<State> state_;
  };
  /// The segments of `text` (valid UTF-8) in order: matches, and the gaps between them. Throws BadData where the pattern
  /// gives up.
  std::vector<Segment> segments(std::string_view text, Scratch& scratch) const;

 private:
  struct Code;
  bool find(std::string_view text, std::size_t start, Scratch& scratch) const;

  std::string source_;
  std::unique_ptr<Code> code_;
};

/// A regular expression that matches `text` and nothing else.
std::string escaped_pattern(std::string_view text);

}  // namespace temper::text
