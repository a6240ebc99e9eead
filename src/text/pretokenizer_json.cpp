// Pre-tokenizers as tokenizer.json writes them.
#include <array>
#include <utility>

#include "base/error.h"
#include "text/pretokenizer.h"

namespace temper::text {
namespace {

using files::Json;
using Kind = PreTokenizerStep::Kind;

constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> kBehaviors = {{
    {"Removed", SplitBehavior::kRemoved},
    {"Isolated", SplitBehavior::kIsolated},
    {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
    {"MergedWithNext", SplitBehavior::kMergedWithNext},
    {"Contiguous", SplitBehavior::kContiguous},
}};

SplitBehavior behavior_from_json(const Json& object, const std::string& origin) {
  const std::string& name = files::require_string(object, "behavior", origin);
  for (const auto& [known, behavior] : kBehaviors) {
    if (name == known) return behavior;
  }
  throw BadFile(
      "{}: pre_tokenizer: behavior: expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous, found {}",
      origin, name);
}

/// A regular expression that matches `text` and nothing else.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (static_cast<unsigned char>(c) & 0x80U) != 0 || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
                       (c >= 'a' && c <= 'z') || c == '\n' || c == '\r' || c == '\t';
    if (!plain) out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

PreTokenizerStep split_step(const Json& object, const std::string& origin) {
  const Json& pattern = files::require_object(object, "pattern", origin);
  const auto literal = files::optional_string(pattern, "String", origin);
  return {.kind = Kind::kSplit,
          .pattern = literal ? escaped(*literal) : files::require_string(pattern, "Regex", origin),
          .behavior = behavior_from_json(object, origin),
          .invert = files::optional_bool(object, "invert", origin).value_or(false)};
}

void append_steps(const Json& object, const std::string& origin, std::vector<PreTokenizerStep>& steps, bool& byte_level) {
  const std::string& type = files::require_string(object, "type", origin);
  if (type == "Sequence") {
    for (const Json& part : files::require_array(object, "pretokenizers", origin))
      append_steps(part, origin, steps, byte_level);
  } else if (type == "ByteLevel") {
    if (byte_level) throw Unsupported("{}: pre_tokenizer: more than one ByteLevel", origin);
    byte_level = true;
    if (files::optional_bool(object, "add_prefix_space", origin).value_or(true))
      steps.push_back({.kind = Kind::kPrefixSpace, .pattern = {}});
    if (files::optional_bool(object, "use_regex", origin).value_or(true))
      steps.push_back({.pattern = std::string(gpt2_pattern())});
    steps.push_back({.kind = Kind::kAlphabet, .pattern = {}});
  } else if (type == "Split") {
    steps.push_back(split_step(object, origin));
  } else if (type == "Digits") {
    const bool individual = files::optional_bool(object, "individual_digits", origin).value_or(false);
    steps.push_back({.pattern = R"(\p{N})", .behavior = individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous});
  } else if (type == "Punctuation") {
    const bool given = files::find_key(object, "behavior") != nullptr;
    steps.push_back({.pattern = R"([\p{P}\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e])",
                     .behavior = given ? behavior_from_json(object, origin) : SplitBehavior::kIsolated});
  } else {
    throw Unsupported("{}: pre_tokenizer: expected ByteLevel, Split, Digits, Punctuation or a Sequence of these, found {}",
                      origin, type);
  }
}

}  // namespace

std::vector<PreTokenizerStep> pre_tokenizer_from_json(const Json& pre_tokenizer, const std::string& origin) {
  std::vector<PreTokenizerStep> steps;
  bool byte_level = false;
  append_steps(pre_tokenizer, origin, steps, byte_level);
  if (!byte_level)
    throw Unsupported("{}: pre_tokenizer: expected ByteLevel among its steps (only byte-level BPE is supported)", origin);
  if (!steps.empty() && steps.back().kind == Kind::kAlphabet) steps.pop_back();  // nothing looks at it
  return steps;
}

Json pre_tokenizer_to_json(const std::vector<PreTokenizerStep>& steps) {
  Json sequence = Json::array();
  for (const PreTokenizerStep& step : steps) {
    if (step.kind != Kind::kSplit) throw LogicError("pre_tokenizer_to_json: only splits are written");
    Json split = {{"type", "Split"}, {"pattern", {{"Regex", step.pattern}}}, {"invert", step.invert}};
    for (const auto& [name, behavior] : kBehaviors) {
      if (behavior == step.behavior) split["behavior"] = name;
    }
    sequence.push_back(std::move(split));
  }
  sequence.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}});
  return {{"type", "Sequence"}, {"pretokenizers", std::move(sequence)}};
}

}  // namespace temper::text
