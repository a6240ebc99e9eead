#include "model/module_pattern.h"

#include <algorithm>
#include <cctype>
#include <cstdint>

#include "base/error.h"

namespace temper::model {
namespace {

/// One step of a key: a character, any character, or any run of characters.
struct Step {
  enum Kind : std::uint8_t { Literal, Any, Run } kind;
  char literal = 0;
};

struct Key {
  bool from_start = false;  ///< ^: no prefix may stand before it.
  std::vector<Step> steps;
};

[[noreturn]] void refuse(std::string_view key) {
  throw Unsupported(
      "pattern \"{}\": only names are read, with . (any character), .* (any run of characters) and \\. (a dot); write one "
      "key "
      "for each name",
      key);
}

Key parse(std::string_view text) {
  Key key;
  std::string_view rest = text;
  if (rest.starts_with('^')) key.from_start = true, rest.remove_prefix(1);
  if (rest.ends_with('$')) rest.remove_suffix(1);
  if (rest.empty()) refuse(text);
  for (std::size_t i = 0; i < rest.size(); ++i) {
    const char c = rest[i];
    if (c == '\\' && i + 1 < rest.size() && rest[i + 1] == '.') {
      key.steps.push_back({Step::Literal, '.'});
      ++i;
    } else if (c == '.' && i + 1 < rest.size() && rest[i + 1] == '*') {
      key.steps.push_back({Step::Run});
      ++i;
    } else if (c == '.') {
      key.steps.push_back({Step::Any});
    } else if (std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-') {
      key.steps.push_back({Step::Literal, c});
    } else {
      refuse(text);
    }
  }
  return key;
}

bool matches(const Step& step, char c) { return step.kind == Step::Any || step.literal == c; }

/// All of the text, from its first character to its last.
bool matches_all(const std::vector<Step>& steps, std::string_view text) {
  if (std::ranges::none_of(steps, [](const Step& step) { return step.kind == Step::Run; }))
    return std::ranges::equal(steps, text, matches);
  std::vector<bool> here(text.size() + 1, false);  // after some steps: which beginnings of the text they match
  here[0] = true;
  for (const Step& step : steps) {
    std::vector<bool> next(text.size() + 1, false);
    for (std::size_t i = 0; i <= text.size(); ++i) {
      if (step.kind == Step::Run)
        next[i] = here[i] || (i > 0 && next[i - 1]);
      else if (i > 0)
        next[i] = here[i - 1] && matches(step, text[i - 1]);
    }
    here = std::move(next);
  }
  return here.back();
}

}  // namespace

bool matches_module(std::string_view key, std::string_view module) {
  const Key parsed = parse(key);
  if (matches_all(parsed.steps, module)) return true;
  if (parsed.from_start) return false;
  for (std::size_t dot = module.find('.'); dot != std::string_view::npos; dot = module.find('.', dot + 1))
    if (matches_all(parsed.steps, module.substr(dot + 1))) return true;
  return false;
}

template <typename Value>
Value pattern_value(const ModulePattern<Value>& pattern, std::string_view module, Value otherwise, std::string_view what) {
  const std::pair<std::string, Value>* found = nullptr;
  for (const auto& entry : pattern) {
    if (!matches_module(entry.first, module)) continue;
    if (found && found->second != entry.second)
      throw BadRecipe("lora.{}: \"{}\" ({}) and \"{}\" ({}) both match {}; keep one, or make the names longer", what,
                      found->first, found->second, entry.first, entry.second, module);
    if (!found) found = &entry;
  }
  return found ? found->second : otherwise;
}

template std::int64_t pattern_value(const ModulePattern<std::int64_t>&, std::string_view, std::int64_t, std::string_view);
template double pattern_value(const ModulePattern<double>&, std::string_view, double, std::string_view);

}  // namespace temper::model
