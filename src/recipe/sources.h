// A recipe put together from where options may come from. Later sources win:
// defaults < the resumed run's recipe < recipe file < key=value < flags.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "recipe/recipe.h"

namespace temper::recipe {

struct Option;

class Sources {
 public:
  explicit Sources(Verb verb) : verb_(verb) {}

  /// A bare argument: `key=value`, a recipe (*.yaml, *.yml), or what the verb's positional option stands for.
  /// Throws BadRecipe if it is none of them, or a second recipe.
  void add_argument(std::string_view argument);
  void add_flag(const Option& option, std::string value);

  /// Reads and overlays everything; not yet resolved. Throws BadRecipe, BadFile.
  Recipe assemble() const;

 private:
  struct Assignment {
    const Option* option;
    std::string value, where;
  };
  void overlay(Recipe& recipe) const;

  Verb verb_;
  std::string file_;
  std::vector<Assignment> overrides_, flags_;
};

}  // namespace temper::recipe
