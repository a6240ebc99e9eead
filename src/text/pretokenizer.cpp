#include "text/pretokenizer.h"

#include <algorithm>
#include <utility>

#include "text/unicode.h"

namespace temper::text {
namespace {

using Segment = Pattern::Segment;

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

/// `piece` after a step that does not split.
std::string rewritten(std::string_view piece, const PreTokenizerStep& step, bool first, TextPart part) {
  using Kind = PreTokenizerStep::Kind;
  using Prepend = PreTokenizerStep::Prepend;
  if (step.kind == Kind::kAlphabet) return bytes_to_alphabet(piece);
  const bool continued = first && part == TextPart::kContinuation;
  if (step.kind == Kind::kPrefixSpace) return (continued || piece.starts_with(' ') ? "" : " ") + std::string(piece);
  std::string out = replace_all(piece, " ", step.pattern);
  const bool wanted =
      step.prepend == Prepend::kAlways || (step.prepend == Prepend::kFirst && first && part == TextPart::kWhole);
  return wanted && !continued && !out.starts_with(step.pattern) ? step.pattern + out : out;
}

}  // namespace

PreTokenizer::PreTokenizer(std::vector<PreTokenizerStep> steps, const std::string& origin) : steps_(std::move(steps)) {
  for (const PreTokenizerStep& step : steps_) {
    const bool split = step.kind == PreTokenizerStep::Kind::kSplit;
    patterns_.push_back(split ? std::make_unique<Pattern>(step.pattern, origin) : nullptr);
  }
}
PreTokenizer::~PreTokenizer() = default;
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;

PreTokenizer::Pieces PreTokenizer::cut(std::string_view text, TextPart part) const {
  Pieces pieces;
  if (text.empty()) return pieces;
  pieces.views.push_back(text);
  bool alphabet = false;
  for (std::size_t step = 0; step < steps_.size(); ++step) {
    apply(step, part, pieces);
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

void PreTokenizer::apply(std::size_t step, TextPart part, Pieces& pieces) const {
  const PreTokenizerStep& what = steps_[step];
  if (what.kind != PreTokenizerStep::Kind::kSplit) {
    for (std::size_t i = 0; i < pieces.views.size(); ++i) {
      std::string_view& piece = pieces.views[i];
      pieces.owned.push_back(std::make_unique<std::string>(rewritten(piece, what, i == 0, part)));
      piece = *pieces.owned.back();
    }
    return;
  }
  Pattern::Scratch scratch;
  std::vector<std::string_view> views;
  views.reserve(pieces.views.size() * 2);
  std::vector<Segment> parts;
  for (const std::string_view piece : pieces.views) {
    std::vector<Segment> segments = patterns_[step]->segments(piece, scratch);
    if (what.invert) {
      for (Segment& segment : segments) segment.match = !segment.match;
    }
    parts.clear();
    if (what.behavior == SplitBehavior::kIsolated) {
      parts.swap(segments);
    } else {
      apply_behavior(std::move(segments), what.behavior, parts);
    }
    for (const Segment& cut : parts) {
      if (cut.end > cut.begin) views.push_back(piece.substr(cut.begin, cut.end - cut.begin));
    }
  }
  pieces.views = std::move(views);
}

}  // namespace temper::text
