#include "commands.h"

#include <fmt/format.h>

#include "base/error.h"
#include "recipe/docs.h"

namespace temper::cli {
namespace {

using recipe::Verb;

void train(const Recipe&) { throw Unsupported("train: not built yet"); }
void quantize(const Recipe&) { throw Unsupported("quantize: not built yet"); }
void export_run(const Recipe&) { throw Unsupported("export: not built yet"); }
void evaluate(const Recipe&) { throw Unsupported("eval: not built yet"); }
void generate(const Recipe&) { throw Unsupported("generate: not built yet"); }
void chat(const Recipe&) { throw Unsupported("chat: not built yet"); }
void data_inspect(const Recipe&) { throw Unsupported("data inspect: not built yet"); }
void inspect(const Recipe&) { throw Unsupported("inspect: not built yet"); }
void demo(const Recipe&) { throw Unsupported("demo: not built yet"); }
void docs() { fmt::print("{}", recipe::options_markdown()); }

}  // namespace

void run_command(const Command& command) {
  switch (command.verb) {
    case Verb::Train: return train(command.recipe);
    case Verb::Quantize: return quantize(command.recipe);
    case Verb::Export: return export_run(command.recipe);
    case Verb::Eval: return evaluate(command.recipe);
    case Verb::Generate: return generate(command.recipe);
    case Verb::Chat: return chat(command.recipe);
    case Verb::DataInspect: return data_inspect(command.recipe);
    case Verb::Inspect: return inspect(command.recipe);
    case Verb::Demo: return demo(command.recipe);
    case Verb::Docs: return docs();
  }
}

}  // namespace temper::cli
