// The table itself: every option and every verb, once. Its parts stand in table_*.cpp.
#include "recipe/table.h"

#include <algorithm>
#include <array>

namespace temper::recipe {
namespace {

/// Heal trains on text of its own, with an objective of its own, in a run of its own: these would have nothing to say.
bool heal_takes(const Option& option) {
  constexpr std::array<std::string_view, 15> kNot = {
      "data.path",     "data.eval_path",  "data.format",      "data.packing",    "data.seq_len",
      "data.max_rows", "train.objective", "train.eval_every", "train.eval_rows", "train.plan",
      "train.resume",  "train.profile",   "distill.cache",    "eval.reference",  "lora.dropout"};
  return takes(option, Verb::Train) && group_of(option) != "dpo" && std::ranges::find(kNot, option.key) == kNot.end();
}

/// Plan takes a training recipe, too. Its own --seed is that of its figures.
bool plan_takes(const Option& option) {
  return takes(option, Verb::Train) && option.key != "train.plan" && option.key != "train.seed";
}

}  // namespace

std::span<const Option> options() {
  static const std::vector<Option> table = [] {
    std::vector<Option> all;
    for (auto part :
         {input_options, method_options, train_options, objective_options, heal_options, eval_options, talk_options})
      for (Option& option : part()) all.push_back(std::move(option));
    for (Option& option : all) {
      if (heal_takes(option)) option.verbs |= kHeal;
      if (plan_takes(option)) option.verbs |= kPlan;
    }
    return all;
  }();
  return table;
}

std::span<const VerbInfo> verbs() {
  static const std::vector<VerbInfo> table = {
      {Verb::Train, "train", "Fine-tune with LoRA, quantization-aware if a scheme is given",
       "temper train --model MODEL --data train.jsonl --eval-data test.jsonl --scheme q4_0 --steps 60 --lr 4e-4 --out RUN"},
      {Verb::Quantize, "quantize", "Quantize a model after training (PTQ)",
       "temper quantize --model MODEL --scheme q4_0 --out FILE"},
      {Verb::Imatrix, "imatrix", "Measure the importance of every weight's column on a text, as llama-imatrix does",
       "temper imatrix --model MODEL --text calibration.txt --out imatrix.gguf"},
      {Verb::Transform, "transform",
       "Change weights so that they quantize better and compute the same: AWQ, SmoothQuant, rotations",
       "temper transform --model MODEL --transform rotate --out FOLDER"},
      {Verb::Export, "export", "Write a run as GGUF, Hugging Face folder or adapter, and verify it",
       "temper export --run RUN --to gguf:q4_0 --out FILE"},
      {Verb::Eval, "eval", "Measure answer NLL, perplexity, KL divergence or accuracy",
       "temper eval --run RUN --data test.jsonl --rows 120 --json"},
      {Verb::Generate, "generate", "Answer one prompt", "temper generate --run RUN --prompt \"What is 3 + 4?\"",
       "generate.prompt"},
      {Verb::Chat, "chat", "Talk with a model or run", "temper chat --run RUN"},
      {Verb::DataInspect, "data inspect", "Show rows as tokens, the learnt ones in colour",
       "temper data inspect --model MODEL --data train.jsonl --row 3", "data.path"},
      {Verb::Inspect, "inspect", "List a model's tensors, their dtypes and sizes", "temper inspect MODEL", "model.path"},
      {Verb::Compare, "compare", "Set number formats side by side: size, loss, KL divergence, speed, with a chart",
       "temper compare MODEL --schemes q4_0,q4_k_m,q3_k_m --text TEXT --chart compare.svg", "model.path"},
      {Verb::Plan, "plan",
       "Show what a training recipe would take: memory by part, time, what saves some; or, with --text, --size, --bits or "
       "--types, what the best mixes of number formats cost at each size",
       "temper plan recipe.yaml --memory 8GiB"},
      {Verb::Heal, "heal", "Quantize a model and win back what that costs, on text that the model writes itself: no data",
       "temper heal MODEL --scheme q4_0 --out FILE", "model.path"},
      {Verb::Demo,
       "demo",
       "Tune, quantize, export and measure a small model",
       "temper demo --model MODEL --out demo",
       {},
       true},
      {Verb::Schemes, "schemes", "List the schemes: bits per weight, the files that carry them and who reads those",
       "temper schemes"},
      {Verb::Docs, "docs", "Print docs/recipe.md", "temper docs > docs/recipe.md", {}, true},
  };
  return table;
}

}  // namespace temper::recipe
