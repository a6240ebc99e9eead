// "Did you mean": the nearest of some names.
#pragma once

#include <span>
#include <string_view>

namespace temper {

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b` (optimal string alignment distance).
std::size_t edit_distance(std::string_view a, std::string_view b);

/// The candidate nearest to `name`, as a whole or in the part behind its last dot; empty if none is within a third of the
/// length.
std::string_view nearest_name(std::string_view name, std::span<const std::string_view> candidates);

}  // namespace temper
