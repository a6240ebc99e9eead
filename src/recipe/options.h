// The one schema of options: command line, YAML recipe, --help and docs/recipe.md are all read from this table.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "recipe/recipe.h"

namespace temper::recipe {

/// An option whose values are the members of an enum, in the order of Option::choices.
struct ChoiceField {
  std::size_t (*get)(const Recipe&);
  void (*set)(Recipe&, std::size_t);
};

/// Where the value of an option stands in a Recipe, and its type.
using Field = std::variant<bool& (*)(Recipe&), std::int64_t& (*)(Recipe&), double& (*)(Recipe&), std::string& (*)(Recipe&),
                           std::vector<std::string>& (*)(Recipe&), ChoiceField>;

struct Range {
  double min = 0;
  double max = std::numeric_limits<double>::infinity();
  bool open_min = false;  ///< `min` itself is not allowed.
  bool open_max = false;
};

using VerbSet = unsigned;
constexpr VerbSet verb_bit(Verb verb) { return 1u << static_cast<unsigned>(verb); }

/// One row of the table.
struct Option {
  std::string_view key;   ///< "lora.r": name in a recipe and in `key=value`.
  std::string_view flag;  ///< "--lora-r"; unique among the options of each verb.
  Field field;
  VerbSet verbs = 0;                           ///< Verbs that take it on their command line.
  std::string_view help;                       ///< One sentence, without a full stop.
  std::string_view unit = {};                  ///< "steps", "tokens", …
  Range range = {};                            ///< Of integers and reals.
  std::vector<std::string_view> choices = {};  ///< Of choices, and of the elements of lists if any.
};

/// A verb of the command line.
struct VerbInfo {
  Verb verb;
  std::string_view name;  ///< "data inspect" for a verb in two words.
  std::string_view summary;
  std::string_view example;
  std::string_view positional_key = {};  ///< Option that a bare argument (no recipe, no key=value) stands for.
  bool hidden = false;
};

std::span<const Option> options();
std::span<const VerbInfo> verbs();
const VerbInfo& verb_info(Verb verb);

inline bool takes(const Option& option, Verb verb) { return (option.verbs & verb_bit(verb)) != 0; }

/// The option of that key, or null.
const Option* find_option(std::string_view key);
/// The option with that key; throws BadRecipe, "<where>: unknown option …", with the nearest key.
const Option& require_option(std::string_view key, std::string_view where);
/// The flag of `verb` nearest to `flag`, empty if none is near.
std::string_view nearest_flag(Verb verb, std::string_view flag);

/// "lora" of "lora.r"; empty for an option without a group.
std::string_view group_of(const Option& option);

/// "integer", "real", "true or false", "text", "list", or the choices.
std::string type_name(const Option& option);
/// What a value must be, in words: "an integer from 0 to 4096".
std::string expectation(const Option& option);

bool is_switch(const Option& option);  ///< true or false
bool is_list(const Option& option);

/// Parses `text` (lists: separated by commas), checks type and range, and stores it. Throws BadRecipe "<where>: <key>:
/// expected …, found …".
void assign(const Option& option, Recipe& recipe, std::string_view text, std::string_view where);
void assign_list(const Option& option, Recipe& recipe, const std::vector<std::string>& items, std::string_view where);

/// The value as `assign` reads it back to the same value.
std::string value_text(const Option& option, const Recipe& recipe);
std::vector<std::string> value_list(const Option& option, const Recipe& recipe);

}  // namespace temper::recipe
