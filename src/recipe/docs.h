// Words about the options, for readers: docs/recipe.md and --help.
#pragma once

#include <string>

#include "recipe/options.h"

namespace temper::recipe {

/// docs/recipe.md in full.
std::string options_markdown();

/// Heading of a group of options: "Adapters (LoRA)" for "lora".
std::string_view group_title(std::string_view group);

/// "steps; default 0" and the like: what stands behind an option in --help.
std::string help_line(const Option& option);

}  // namespace temper::recipe
