// Pre-tokenizers as tokenizer.json writes them.
#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"
#include "text/pretokenizer.h"
#include "text/unicode.h"

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

PreTokenizerStep split_step(const Json& object, const std::string& origin) {
  const Json& pattern = files::require_object(object, "pattern", origin);
  const auto literal = files::optional_string(pattern, "String", origin);
  return {.kind = Kind::kSplit,
          .pattern = literal ? escaped_pattern(*literal) : files::require_string(pattern, "Regex", origin),
          .behavior = behavior_from_json(object, origin),
          .invert = files::optional_bool(object, "invert", origin).value_or(false)};
}

void append_byte_level(const Json& object, const std::string& origin, JsonPreTokenizer& out) {
  if (out.byte_level) throw Unsupported("{}: pre_tokenizer: more than one ByteLevel", origin);
  out.byte_level = true;
  if (files::optional_bool(object, "add_prefix_space", origin).value_or(true))
    out.steps.push_back({.kind = Kind::kPrefixSpace, .pattern = {}});
  if (files::optional_bool(object, "use_regex", origin).value_or(true))
    out.steps.push_back({.pattern = std::string(gpt2_pattern())});
  out.steps.push_back({.kind = Kind::kAlphabet, .pattern = {}});
}

/// `prepend_scheme`, or `add_prefix_space` in older files. Words begin at the character unless `split` is off.
void append_metaspace(const Json& object, const std::string& origin, JsonPreTokenizer& out) {
  using Prepend = PreTokenizerStep::Prepend;
  const std::string& character = files::require_string(object, "replacement", origin);
  if (character.empty() || read_utf8(character).length != character.size()) {
    throw BadFile("{}: pre_tokenizer: Metaspace: replacement: expected one character, found \"{}\"", origin, character);
  }
  const bool prefix = files::optional_bool(object, "add_prefix_space", origin).value_or(true);
  const std::string scheme = files::optional_string(object, "prepend_scheme", origin).value_or(prefix ? "always" : "never");
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    throw BadFile("{}: pre_tokenizer: Metaspace: prepend_scheme: expected always, first or never, found {}", origin, scheme);
  }
  const Prepend prepend = scheme == "always" ? Prepend::kAlways : scheme == "first" ? Prepend::kFirst : Prepend::kNever;
  out.steps.push_back({.kind = Kind::kMetaspace, .pattern = character, .prepend = prepend});
  if (files::optional_bool(object, "split", origin).value_or(true))
    out.steps.push_back({.pattern = escaped_pattern(character), .behavior = SplitBehavior::kMergedWithNext});
}

void append_steps(const Json& object, const std::string& origin, JsonPreTokenizer& out) {
  const std::string& type = files::require_string(object, "type", origin);
  if (type == "Sequence") {
    for (const Json& part : files::require_array(object, "pretokenizers", origin)) append_steps(part, origin, out);
  } else if (type == "ByteLevel") {
    append_byte_level(object, origin, out);
  } else if (type == "Metaspace") {
    append_metaspace(object, origin, out);
  } else if (type == "Split") {
    out.steps.push_back(split_step(object, origin));
  } else if (type == "Digits") {
    const bool individual = files::optional_bool(object, "individual_digits", origin).value_or(false);
    out.steps.push_back(
        {.pattern = R"(\p{N})", .behavior = individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous});
  } else if (type == "Punctuation") {
    const bool given = files::find_key(object, "behavior") != nullptr;
    out.steps.push_back({.pattern = R"([\p{P}\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e])",
                         .behavior = given ? behavior_from_json(object, origin) : SplitBehavior::kIsolated});
  } else if (type == "WhitespaceSplit") {
    out.steps.push_back({.pattern = R"(\s)", .behavior = SplitBehavior::kRemoved});
  } else if (type == "Whitespace") {
    out.steps.push_back({.pattern = R"(\w+|[^\w\s]+)", .behavior = SplitBehavior::kRemoved, .invert = true});
  } else {
    throw Unsupported(
        "{}: pre_tokenizer: expected ByteLevel, Metaspace, Split, Digits, Punctuation, Whitespace, WhitespaceSplit or a "
        "Sequence of these, found {}",
        origin, type);
  }
}

}  // namespace

JsonPreTokenizer pre_tokenizer_from_json(const Json& pre_tokenizer, const std::string& origin) {
  JsonPreTokenizer out;
  append_steps(pre_tokenizer, origin, out);
  const bool metaspace = std::ranges::any_of(out.steps, [](const auto& step) { return step.kind == Kind::kMetaspace; });
  if (out.byte_level && metaspace) throw Unsupported("{}: pre_tokenizer: both ByteLevel and Metaspace", origin);
  if (!out.steps.empty() && out.steps.back().kind == Kind::kAlphabet) out.steps.pop_back();  // nothing looks at it
  return out;
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
