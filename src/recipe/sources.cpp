#include "recipe/sources.h"

#include "base/error.h"
#include "recipe/options.h"

namespace temper::recipe {
namespace {

/// True for "lora.r=32": a name, letters to dots, before the first '='.
bool is_assignment(std::string_view argument) {
  const auto equals = argument.find('=');
  constexpr std::string_view kNameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  return equals != std::string_view::npos && equals > 0 && argument.find_first_not_of(kNameCharacters) == equals;
}

}  // namespace

void Sources::add_argument(std::string_view argument) {
  const VerbInfo& verb = verb_info(verb_);
  if (argument.ends_with(".yaml") || argument.ends_with(".yml")) {
    if (!file_.empty()) throw BadRecipe("one recipe at a time: found {} and {}", file_, argument);
    file_ = argument;
  } else if (is_assignment(argument)) {
    const auto equals = argument.find('=');
    const Option& option = require_option(argument.substr(0, equals), "command line");
    if (!takes(option, verb_)) throw BadRecipe("{}: not an option of `temper {}`", option.key, verb.name);
    overrides_.push_back({&option, std::string(argument.substr(equals + 1)), "command line"});
  } else if (!verb.positional_key.empty()) {
    overrides_.push_back({&require_option(verb.positional_key, "command line"), std::string(argument), "command line"});
  } else {
    throw BadRecipe("\"{}\": expected a recipe (*.yaml) or key=value; `temper {} --help` lists the options", argument,
                    verb.name);
  }
}

void Sources::add_flag(const Option& option, std::string value) {
  flags_.push_back({&option, std::move(value), std::string(option.flag)});
}

void Sources::overlay(Recipe& recipe) const {
  if (!file_.empty()) load_yaml(file_, recipe);
  for (const auto* assignments : {&overrides_, &flags_})
    for (const Assignment& assignment : *assignments) assign(*assignment.option, recipe, assignment.value, assignment.where);
}

Recipe Sources::assemble() const {
  Recipe recipe;
  overlay(recipe);
  if (recipe.train.resume.empty()) return recipe;
  // Now that the run is known, start again from what it was started with.
  const std::string run = recipe.train.resume;
  recipe = Recipe{};
  load_yaml(std::filesystem::path(run) / kRecipeFileName, recipe);
  // A run may be given a new length either way; what its recipe said must not contradict it.
  Recipe asked;
  overlay(asked);
  if (asked.train.epochs > 0) recipe.train.steps = 0;
  if (asked.train.steps > 0) recipe.train.epochs = 0;
  overlay(recipe);
  return recipe;
}

}  // namespace temper::recipe
