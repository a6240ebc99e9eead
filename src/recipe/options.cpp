#include "recipe/options.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/nearest.h"

namespace temper::recipe {
namespace {

/// A variant visitor made of lambdas.
template <typename... Lambdas>
struct Overloaded : Lambdas... {
  using Lambdas::operator()...;
};
template <typename... Lambdas>
Overloaded(Lambdas...) -> Overloaded<Lambdas...>;  // clang 14 does not deduce aggregates

template <typename Number>
bool parse_number(std::string_view text, Number& number) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc{} && end == text.data() + text.size() && !text.empty();
}

bool in_range(const Range& range, double x) {
  return std::isfinite(x) && x >= range.min && x <= range.max && !(range.open_min && x == range.min) &&
         !(range.open_max && x == range.max);
}

[[noreturn]] void refuse(const Option& option, std::string_view found, std::string_view where) {
  throw BadRecipe("{}: {}: expected {}, found \"{}\"", where, option.key, expectation(option), found);
}

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t"), last = text.find_last_not_of(" \t");
  return first == std::string_view::npos ? std::string_view{} : text.substr(first, last - first + 1);
}

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> items;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    if (const auto item = trimmed(text.substr(begin, end - begin)); !item.empty()) items.emplace_back(item);
    begin = end + 1;
  }
  return items;
}

// Fields hand out references into a Recipe; reading needs none of the mutability.
Recipe& mutable_view(const Recipe& recipe) { return const_cast<Recipe&>(recipe); }

}  // namespace

const VerbInfo& verb_info(Verb verb) {
  for (const VerbInfo& info : verbs())
    if (info.verb == verb) return info;
  throw LogicError("a verb without a row in the table of verbs: {}", static_cast<int>(verb));
}

const Option* find_option(std::string_view key) {
  for (const Option& option : options())
    if (option.key == key) return &option;
  return nullptr;
}

const Option& require_option(std::string_view key, std::string_view where) {
  if (const Option* option = find_option(key)) return *option;
  std::vector<std::string_view> keys;
  for (const Option& option : options()) keys.push_back(option.key);
  const std::string_view nearest = nearest_name(key, keys);
  if (nearest.empty()) throw BadRecipe("{}: unknown option \"{}\"; docs/recipe.md lists all of them", where, key);
  throw BadRecipe("{}: unknown option \"{}\"; did you mean \"{}\"?", where, key, nearest);
}

std::string_view nearest_flag(Verb verb, std::string_view flag) {
  std::vector<std::string_view> flags;
  for (const Option& option : options())
    if (takes(option, verb)) flags.push_back(option.flag);
  return nearest_name(flag.substr(0, flag.find('=')), flags);
}

std::string_view group_of(const Option& option) {
  const auto dot = option.key.find('.');
  return dot == std::string_view::npos ? std::string_view{} : option.key.substr(0, dot);
}

bool is_switch(const Option& option) { return std::holds_alternative<bool& (*)(Recipe&)>(option.field); }
bool is_list(const Option& option) { return std::holds_alternative<std::vector<std::string>& (*)(Recipe&)>(option.field); }

std::string type_name(const Option& option) {
  return std::visit(Overloaded{[](bool& (*)(Recipe&)) { return std::string("true or false"); },
                               [](std::int64_t& (*)(Recipe&)) { return std::string("integer"); },
                               [](double& (*)(Recipe&)) { return std::string("real"); },
                               [](std::string& (*)(Recipe&)) { return std::string("text"); },
                               [](std::vector<std::string>& (*)(Recipe&)) { return std::string("list"); },
                               [&](const ChoiceField&) { return fmt::format("{}", fmt::join(option.choices, ", ")); }},
                    option.field);
}

std::string expectation(const Option& option) {
  const Range& range = option.range;
  std::string limits = fmt::format(" {} {}", range.open_min ? "above" : "from", range.min);
  if (std::isfinite(range.max)) limits += fmt::format("{} {}", range.open_max ? " to below" : " to", range.max);
  if (!std::isfinite(range.max) || range.max >= 1e12)
    limits = range.open_min ? fmt::format(" above {}", range.min) : fmt::format(" of at least {}", range.min);
  const auto joined = fmt::format("{}", fmt::join(option.choices, ", "));
  return std::visit(Overloaded{[](bool& (*)(Recipe&)) { return std::string("true or false"); },
                               [&](std::int64_t& (*)(Recipe&)) { return "an integer" + limits; },
                               [&](double& (*)(Recipe&)) { return "a number" + limits; },
                               [](std::string& (*)(Recipe&)) { return std::string("text"); },
                               [&](std::vector<std::string>& (*)(Recipe&)) {
                                 return joined.empty() ? std::string("a list") : "a list of " + joined;
                               },
                               [&](const ChoiceField&) { return "one of " + joined; }},
                    option.field);
}

void assign_list(const Option& option, Recipe& recipe, const std::vector<std::string>& items, std::string_view where) {
  if (!is_list(option)) refuse(option, fmt::format("[{}]", fmt::join(items, ", ")), where);
  for (const std::string& item : items)
    if (!option.choices.empty() && std::ranges::find(option.choices, item) == option.choices.end())
      refuse(option, item, where);
  if (items.empty() && !option.choices.empty()) refuse(option, "", where);
  std::get<std::vector<std::string>& (*)(Recipe&)>(option.field)(recipe) = items;
}

void assign(const Option& option, Recipe& recipe, std::string_view text, std::string_view where) {
  std::visit(
      Overloaded{[&](bool& (*access)(Recipe&)) {
                   if (text != "true" && text != "false") refuse(option, text, where);
                   access(recipe) = text == "true";
                 },
                 [&](std::int64_t& (*access)(Recipe&)) {
                   std::int64_t number = 0;
                   if (!parse_number(text, number) || !in_range(option.range, static_cast<double>(number)))
                     refuse(option, text, where);
                   access(recipe) = number;
                 },
                 [&](double& (*access)(Recipe&)) {
                   double number = 0;
                   if (!parse_number(text, number) || !in_range(option.range, number)) refuse(option, text, where);
                   access(recipe) = number;
                 },
                 [&](std::string& (*access)(Recipe&)) { access(recipe) = text; },
                 [&](std::vector<std::string>& (*)(Recipe&)) { assign_list(option, recipe, split_list(text), where); },
                 [&](const ChoiceField& choice) {
                   const auto found = std::ranges::find(option.choices, text);
                   if (found == option.choices.end()) refuse(option, text, where);
                   choice.set(recipe, static_cast<std::size_t>(found - option.choices.begin()));
                 }},
      option.field);
}

std::vector<std::string> value_list(const Option& option, const Recipe& recipe) {
  return std::get<std::vector<std::string>& (*)(Recipe&)>(option.field)(mutable_view(recipe));
}

std::string value_text(const Option& option, const Recipe& recipe) {
  Recipe& view = mutable_view(recipe);
  return std::visit(
      Overloaded{
          [&](bool& (*access)(Recipe&)) { return std::string(access(view) ? "true" : "false"); },
          [&](std::int64_t& (*access)(Recipe&)) { return fmt::format("{}", access(view)); },
          [&](double& (*access)(Recipe&)) { return fmt::format("{}", access(view)); },
          [&](std::string& (*access)(Recipe&)) { return access(view); },
          [&](std::vector<std::string>& (*access)(Recipe&)) { return fmt::format("{}", fmt::join(access(view), ",")); },
          [&](const ChoiceField& choice) { return std::string(option.choices.at(choice.get(recipe))); }},
      option.field);
}

bool equal(const Recipe& a, const Recipe& b) {
  return std::ranges::all_of(options(),
                             [&](const Option& option) { return value_text(option, a) == value_text(option, b); });
}

}  // namespace temper::recipe
