// The command line, made from the table of options; no option is written down here.
#pragma once

#include <optional>

#include "recipe/recipe.h"

namespace temper::cli {

struct Command {
  recipe::Verb verb;
  Recipe recipe;  ///< Resolved.
};

/// Parses the arguments. Returns nothing if they asked for help or the version, which is then printed to stdout.
/// Throws BadRecipe for anything unknown or contradictory, BadFile for a recipe that cannot be read.
std::optional<Command> parse_command_line(int argc, const char* const* argv);

}  // namespace temper::cli
