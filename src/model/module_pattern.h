// peft's keys of rank_pattern and alpha_pattern: which modules they name.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace temper::model {

/// True if peft applies a key to a module ("model.layers.0.self_attn.q_proj"): the key, a regular expression, matches the
/// whole name or an end of it that follows a dot (peft 0.21, get_pattern_key). Of regular expressions, what such keys are
/// made of is read: letters, digits, _ and -, `.` (any character), `.*` (any run), `\.` (a dot), ^ first, $ last; time is
/// bounded by the product of the lengths. Throws Unsupported, naming the key, for anything else.
bool matches_module(std::string_view key, std::string_view module);

/// Values by key, in the order given.
template <typename Value>
using ModulePattern = std::vector<std::pair<std::string, Value>>;

/// The value of the key that matches; `otherwise` where none does. peft takes the first in an order that files do not keep,
/// so two that match and disagree are refused (BadRecipe), naming both. `what`: "rank_pattern".
template <typename Value>
Value pattern_value(const ModulePattern<Value>& pattern, std::string_view module, Value otherwise, std::string_view what);

}  // namespace temper::model
