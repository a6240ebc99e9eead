#include "text/normalizer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "text/base64.h"

namespace temper::text {
namespace {

using files::Json;
using Kind = NormalizerStep::Kind;

constexpr std::array<std::pair<std::string_view, NormalForm>, 4> kForms = {
    {{"NFC", NormalForm::kNfc}, {"NFD", NormalForm::kNfd}, {"NFKC", NormalForm::kNfkc}, {"NFKD", NormalForm::kNfkd}}};

std::string replace_matches(std::string_view text, const Pattern& pattern, std::string_view content) {
  Pattern::Scratch scratch;
  std::string out;
  out.reserve(text.size());
  for (const Pattern::Segment& segment : pattern.segments(text, scratch)) {
    out.append(segment.match ? content : text.substr(segment.begin, segment.end - segment.begin));
  }
  return out;
}

std::string stripped(std::string_view text, bool left, bool right) {
  if (left) text.remove_prefix(leading_space(text));
  if (right) text = text.substr(0, without_trailing_space(text));
  return std::string(text);
}

NormalizerStep replace_step(const Json& object, const std::string& origin) {
  const Json& pattern = files::require_object(object, "pattern", origin);
  const std::string& content = files::require_string(object, "content", origin);
  if (const auto literal = files::optional_string(pattern, "String", origin)) {
    if (literal->empty()) throw BadFile("{}: normalizer: Replace: expected a pattern, found an empty string", origin);
    return {.kind = Kind::kReplace, .pattern = *literal, .content = content};
  }
  return {.kind = Kind::kPattern, .pattern = files::require_string(pattern, "Regex", origin), .content = content};
}

NormalizerStep charsmap_step(const Json& object, const std::string& origin) {
  auto blob = decode_base64(files::require_string(object, "precompiled_charsmap", origin));
  if (!blob) throw BadFile("{}: normalizer: precompiled_charsmap: expected base64, found something else", origin);
  return {.kind = Kind::kCharsMap, .content = *std::move(blob), .search = CharsMap::Search::kGrapheme};
}

void append_steps(const Json& normalizer, const std::string& origin, std::vector<NormalizerStep>& steps) {
  const std::string& type = files::require_string(normalizer, "type", origin);
  if (type == "Sequence") {
    for (const Json& part : files::require_array(normalizer, "normalizers", origin)) append_steps(part, origin, steps);
  } else if (type == "Prepend") {
    steps.push_back({.kind = Kind::kPrepend, .content = files::require_string(normalizer, "prepend", origin)});
  } else if (type == "Replace") {
    steps.push_back(replace_step(normalizer, origin));
  } else if (type == "Strip") {
    steps.push_back({.kind = Kind::kStrip,
                     .left = files::optional_bool(normalizer, "strip_left", origin).value_or(true),
                     .right = files::optional_bool(normalizer, "strip_right", origin).value_or(true)});
  } else if (type == "Precompiled") {
    steps.push_back(charsmap_step(normalizer, origin));
  } else {
    const auto* found = std::find_if(kForms.begin(), kForms.end(), [&](const auto& form) { return form.first == type; });
    if (found == kForms.end()) {
      throw Unsupported(
          "{}: normalizer: expected NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip, Precompiled or a Sequence of these, "
          "found "
          "{}",
          origin, type);
    }
    steps.push_back({.form = found->second});
  }
}

Json step_to_json(const NormalizerStep& step) {
  switch (step.kind) {
    case Kind::kForm: {
      const auto* found =
          std::find_if(kForms.begin(), kForms.end(), [&](const auto& form) { return form.second == step.form; });
      return {{"type", found->first}};
    }
    case Kind::kPrepend: return {{"type", "Prepend"}, {"prepend", step.content}};
    case Kind::kReplace: return {{"type", "Replace"}, {"pattern", {{"String", step.pattern}}}, {"content", step.content}};
    case Kind::kPattern: return {{"type", "Replace"}, {"pattern", {{"Regex", step.pattern}}}, {"content", step.content}};
    case Kind::kStrip: return {{"type", "Strip"}, {"strip_left", step.left}, {"strip_right", step.right}};
    case Kind::kCharsMap: return {{"type", "Precompiled"}, {"precompiled_charsmap", encode_base64(step.content)}};
  }
  throw LogicError("normalizer step {}", static_cast<int>(step.kind));
}

}  // namespace

Normalizer::Normalizer(std::vector<NormalizerStep> steps, const std::string& origin) : steps_(std::move(steps)) {
  for (const NormalizerStep& step : steps_) {
    patterns_.push_back(step.kind == Kind::kPattern ? std::make_unique<Pattern>(step.pattern, origin) : nullptr);
    maps_.push_back(step.kind == Kind::kCharsMap ? std::make_unique<CharsMap>(step.content, origin) : nullptr);
  }
}

std::string Normalizer::apply(std::string_view text, TextPart part) const {
  std::string out(text);
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const NormalizerStep& step = steps_[i];
    switch (step.kind) {
      case Kind::kForm: out = normalize(out, step.form); break;
      case Kind::kPrepend:
        if (!out.empty() && part != TextPart::kContinuation) out.insert(0, step.content);
        break;
      case Kind::kReplace: out = replace_all(out, step.pattern, step.content); break;
      case Kind::kPattern: out = replace_matches(out, *patterns_[i], step.content); break;
      case Kind::kStrip: out = stripped(out, step.left, step.right); break;
      case Kind::kCharsMap: out = maps_[i]->apply(out, step.search); break;
    }
  }
  return out;
}

std::vector<NormalizerStep> normalizer_from_json(const Json& normalizer, const std::string& origin) {
  std::vector<NormalizerStep> steps;
  append_steps(normalizer, origin, steps);
  return steps;
}

Json normalizer_to_json(const std::vector<NormalizerStep>& steps) {
  if (steps.empty()) return nullptr;
  Json parts = Json::array();
  for (const NormalizerStep& step : steps) parts.push_back(step_to_json(step));
  return {{"type", "Sequence"}, {"normalizers", std::move(parts)}};
}

}  // namespace temper::text
