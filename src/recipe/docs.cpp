#include "recipe/docs.h"

#include <fmt/ranges.h>

#include "recipe/recipe.h"

namespace temper::recipe {
namespace {

std::string default_text(const Option& option) {
  static const Recipe defaults;
  return value_text(option, defaults);
}

std::string verbs_of(const Option& option) {
  std::vector<std::string_view> names;
  for (const VerbInfo& verb : verbs())
    if (takes(option, verb.verb) && !verb.hidden) names.push_back(verb.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

constexpr std::string_view kIntroduction = R"(# Options

This page is made by `temper docs` from the table of options in `src/recipe/table.cpp`; a test fails if it is out of date.

Every option can be given in a recipe (YAML), as `key=value` or as a flag. Later ones win:
defaults < recipe < `key=value` < flags. An unknown key is refused, and the nearest known one named.

    temper train recipe.yaml lora.r=32 --steps 100

```yaml
# recipe.yaml
model:
  path: SmolLM2-135M-Instruct.gguf
data:
  path: train.jsonl
  eval_path: test.jsonl
  seq_len: 512
lora: {r: 16, alpha: 32}
quant.scheme: q4_0
train.steps: 60
optim: {lr: 4e-4, warmup_steps: 10}
out: runs/first
```

A run's folder holds the whole recipe it was trained with, as `recipe.yaml`.
)";

}  // namespace

std::string_view group_title(std::string_view group) {
  if (group.empty()) return "Output";
  if (group == "model") return "Model";
  if (group == "data") return "Data";
  if (group == "lora") return "Adapters (LoRA)";
  if (group == "quant") return "Quantization";
  if (group == "train") return "Training";
  if (group == "optim") return "Optimizer";
  if (group == "heal") return "Healing without data";
  if (group == "eval") return "Evaluation";
  if (group == "export") return "Export";
  if (group == "generate") return "Generation";
  if (group == "inspect") return "Inspection";
  if (group == "runtime") return "Runtime";
  return group;
}

std::string help_line(const Option& option) {
  const std::string value = default_text(option);
  std::string details = option.unit.empty() ? std::string{} : std::string(option.unit);
  if (!value.empty()) details += fmt::format("{}default {}", details.empty() ? "" : ", ", value);
  return details.empty() ? std::string(option.help) : fmt::format("{} ({})", option.help, details);
}

std::string options_markdown() {
  std::string page(kIntroduction);
  page += "\n## Verbs\n\n| verb | what it does | example |\n|---|---|---|\n";
  for (const VerbInfo& verb : verbs())
    if (!verb.hidden) page += fmt::format("| `{}` | {} | `{}` |\n", verb.name, verb.summary, verb.example);
  std::string_view group = "none yet";
  for (const Option& option : options()) {
    if (group_of(option) != group) {
      group = group_of(option);
      page +=
          fmt::format("\n## {}\n\n| key | flag | type | default | unit | meaning | verbs |\n|---|---|---|---|---|---|---|\n",
                      group_title(group));
    }
    const std::string value = default_text(option);
    page += fmt::format("| `{}` | `{}` | {} | {} | {} | {} | {} |\n", option.key, option.flag, type_name(option),
                        value.empty() ? "" : fmt::format("`{}`", value), option.unit, option.help, verbs_of(option));
  }
  return page;
}

}  // namespace temper::recipe
