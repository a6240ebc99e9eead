#include "command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <deque>
#include <iostream>

#include "base/cpu.h"
#include "base/error.h"
#include "base/nearest.h"
#include "recipe/docs.h"
#include "recipe/options.h"
#include "recipe/sources.h"

namespace temper::cli {
namespace {

using recipe::Option;
using recipe::VerbInfo;

/// An option of one verb as CLI11 sees it, and the text it was given.
struct Flag {
  const Option* option;
  CLI::Option* parsed;
  std::string text;
};

/// One verb's command and the flags it understands. Flags hold their place, as CLI11 writes through references.
struct VerbCommand {
  const VerbInfo* verb;
  CLI::App* app;
  std::deque<Flag> flags;
};

std::string value_name(const Option& option) {
  if (option.choices.empty() || is_list(option)) return type_name(option);
  std::string joined;
  for (std::string_view choice : option.choices) joined.append(joined.empty() ? "" : "|").append(choice);
  return joined;
}

void add_flag(VerbCommand& command, const Option& option) {
  Flag& flag = command.flags.emplace_back(Flag{&option, nullptr, {}});
  const std::string name(option.flag), help = help_line(option);
  if (is_switch(option)) {
    flag.parsed = command.app->add_flag(fmt::format("{0},!--no-{1}", name, name.substr(2)), flag.text, help);
  } else {
    flag.parsed = command.app->add_option(name, flag.text, help)->type_name(value_name(option));
  }
  flag.parsed->group(std::string(recipe::group_title(group_of(option))));
}

/// The app of a verb; "data inspect" is a command below "data".
CLI::App* add_verb_app(CLI::App& root, const VerbInfo& verb) {
  CLI::App* parent = &root;
  std::string name(verb.name);
  if (const auto space = name.find(' '); space != std::string::npos) {
    const std::string first = name.substr(0, space);
    const auto known = root.get_subcommands([&](CLI::App* app) { return app->get_name() == first; });
    parent = known.empty() ? nullptr : known.front();
    if (parent == nullptr) parent = root.add_subcommand(first, std::string(verb.summary))->require_subcommand(1);
    name.erase(0, space + 1);
  }
  CLI::App* app = parent->add_subcommand(name, std::string(verb.summary));
  if (verb.hidden) app->group("");
  // What is neither flag nor value is left over: recipes and key=value are sorted out by recipe::Sources.
  app->allow_extras();
  app->footer(fmt::format("Besides options: a recipe (*.yaml) and key=value, lora.r=32 say.\nExample:\n  {}", verb.example));
  return app;
}

void add_verbs(CLI::App& root, std::deque<VerbCommand>& commands) {
  for (const VerbInfo& verb : recipe::verbs()) {
    VerbCommand& command = commands.emplace_back(VerbCommand{&verb, add_verb_app(root, verb), {}});
    for (const Option& option : recipe::options())
      if (takes(option, verb.verb)) add_flag(command, option);
  }
}

/// Throws if the first argument is meant as a verb but is none.
void check_verb(std::string_view word) {
  std::vector<std::string_view> names;
  for (const VerbInfo& verb : recipe::verbs()) names.push_back(verb.name.substr(0, verb.name.find(' ')));
  if (word.starts_with('-') || std::ranges::find(names, word) != names.end()) return;
  const std::string_view nearest = nearest_name(word, names);
  if (nearest.empty()) throw BadRecipe("\"{}\" is no verb of temper; `temper --help` lists them", word);
  throw BadRecipe("\"{}\" is no verb of temper; did you mean `temper {}`?", word, nearest);
}

[[noreturn]] void refuse_flag(const VerbInfo& verb, const std::string& argument) {
  const std::string_view nearest = nearest_flag(verb.verb, argument);
  if (nearest.empty())
    throw BadRecipe("{}: unknown option of `temper {}`; `temper {} --help` lists them", argument, verb.name, verb.name);
  throw BadRecipe("{}: unknown option of `temper {}`; did you mean {}?", argument, verb.name, nearest);
}

Command assemble(const VerbCommand& command) {
  const VerbInfo& verb = *command.verb;
  recipe::Sources sources(verb.verb);
  for (const std::string& argument : command.app->remaining()) {
    if (argument.starts_with('-')) refuse_flag(verb, argument);
    sources.add_argument(argument);
  }
  for (const Flag& flag : command.flags)
    if (flag.parsed->count() > 0) sources.add_flag(*flag.option, flag.text);
  return {verb.verb, resolve(sources.assemble(), verb.verb)};
}

}  // namespace

std::optional<Command> parse_command_line(int argc, const char* const* argv) {
  CLI::App root{"temper: fine-tunes language models so that they survive quantization, and ships the numbers it trained.",
                "temper"};
  root.set_version_flag("--version", fmt::format("temper {} ({})", TEMPER_VERSION, isa_name(detected_isa())));
  root.require_subcommand(1);
  root.footer("`temper VERB --help` lists a verb's options; docs/recipe.md explains all of them.");
  std::deque<VerbCommand> commands;
  add_verbs(root, commands);
  try {
    root.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help, --version
    root.exit(request, std::cout, std::cerr);
    return std::nullopt;
  } catch (const CLI::ParseError& error) {
    if (argc > 1) check_verb(argv[1]);
    throw BadRecipe("{}; `temper --help` lists what there is", error.what());
  }
  for (const VerbCommand& command : commands)
    if (command.app->parsed()) return assemble(command);
  throw LogicError("no verb was parsed");
}

}  // namespace temper::cli
