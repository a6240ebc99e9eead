#include "commands.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <utility>

#include "base/interrupt.h"
#include "base/progress.h"
#include "recipe/docs.h"
#include "temper/temper.h"

namespace temper::cli {
namespace {

using recipe::Verb;

void print(const api::Outcome& outcome, const Recipe& recipe) {
  status({});  // The bottom line of the terminal makes way.
  fmt::print("{}", recipe.runtime.json ? outcome.json + "\n" : outcome.text);
}

/// Prints text as it comes.
void print_piece(std::string_view piece) {
  status({});
  fmt::print("{}", piece);
  std::fflush(stdout);
}

void generate(const Recipe& recipe) {
  // JSON comes whole; text streams, so that the outcome's text has then been printed already.
  const bool json = recipe.runtime.json;
  const auto outcome = api::generate(recipe, json ? api::TextSink([](std::string_view) {}) : api::TextSink(print_piece));
  if (json)
    print(outcome, recipe);
  else
    fmt::print("\n");
}

void chat(const Recipe& recipe) {
  const bool interactive = isatty(STDIN_FILENO) == 1;
  std::string first = recipe.generate.prompt;
  const auto read_line = [&](std::string& line) {
    if (!first.empty()) {
      line = std::exchange(first, {});
      return true;
    }
    if (interrupted()) return false;
    if (interactive) print_piece("\n> ");
    return static_cast<bool>(std::getline(std::cin, line));
  };
  if (interactive) fmt::print(stderr, "Ctrl-D ends the conversation.\n");
  api::chat(recipe, read_line, print_piece);
}

}  // namespace

void run_command(const Command& command) {
  const Recipe& recipe = command.recipe;
  switch (command.verb) {
    case Verb::Train: return print(api::train(recipe), recipe);
    case Verb::Quantize: return print(api::quantize(recipe), recipe);
    case Verb::Imatrix: return print(api::imatrix(recipe), recipe);
    case Verb::Transform: return print(api::transform(recipe), recipe);
    case Verb::Export: return print(api::export_model(recipe), recipe);
    case Verb::Eval: return print(api::evaluate(recipe), recipe);
    case Verb::Generate: return generate(recipe);
    case Verb::Chat: return chat(recipe);
    case Verb::DataInspect: return print(api::inspect_data(recipe, isatty(STDOUT_FILENO) == 1), recipe);
    case Verb::Inspect: return print(api::inspect(recipe), recipe);
    case Verb::Compare: return print(api::compare(recipe), recipe);
    case Verb::Plan: return print(api::plan(recipe), recipe);
    case Verb::Heal: return print(api::heal(recipe), recipe);
    case Verb::Demo: return print(api::demo(recipe), recipe);
    case Verb::Schemes: return print(api::schemes(), recipe);
    case Verb::Docs: fmt::print("{}", recipe::options_markdown()); return;
  }
}

}  // namespace temper::cli
