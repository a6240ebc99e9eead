// Options of what a step's loss is.
#include "recipe/table.h"

namespace temper::recipe {

std::vector<Option> objective_options() {
  return {
      {.key = "train.objective",
       .flag = "--objective",
       .field = field<&Recipe::train, &T::objective>(),
       .verbs = kTrain,
       .help = "What is learnt: cross-entropy of the labelled tokens; distill: to answer as a teacher does; dpo: to prefer "
               "chosen to rejected answers (rows of prompt, chosen, rejected)",
       .choices = {"cross-entropy", "distill", "dpo"}},
      {"distill.teacher", "--teacher", field<&Recipe::distill, &S::teacher>(), kTrain,
       "Model or run with the same vocabulary; empty: this run's own base, unquantized and without adapters"},
      {.key = "distill.weight",
       .flag = "--distill-weight",
       .field = field<&Recipe::distill, &S::weight>(),
       .verbs = kTrain,
       .help = "w of the loss (1 - w) * NLL + w * T^2 * KL(teacher || student)",
       .range = {.min = 0, .max = 1}},
      {.key = "distill.temperature",
       .flag = "--distill-temperature",
       .field = field<&Recipe::distill, &S::temperature>(),
       .verbs = kTrain,
       .help = "T by which the logits of both are divided",
       .range = {.min = 0.01, .max = 100}},
      {.key = "distill.top_k",
       .flag = "--distill-top-k",
       .field = field<&Recipe::distill, &S::top_k>(),
       .verbs = kTrain,
       .help = "Compute the teacher once and keep so many of its likeliest tokens for each token in a file; the rest counts "
               "as one outcome; 0: the teacher runs at every step",
       .unit = "tokens",
       .range = {.min = 0, .max = 1024}},
      {"distill.cache", "--distill-cache", field<&Recipe::distill, &S::cache>(), kTrain,
       "That file; empty: teacher.safetensors in the run's folder"},
      {.key = "dpo.beta",
       .flag = "--dpo-beta",
       .field = field<&Recipe::dpo, &B::beta>(),
       .verbs = kTrain,
       .help = "Strength with which the model is held near the reference",
       .range = {.min = 0, .max = 100, .open_min = true}},
      {.key = "dpo.label_smoothing",
       .flag = "--dpo-label-smoothing",
       .field = field<&Recipe::dpo, &B::label_smoothing>(),
       .verbs = kTrain,
       .help = "Share of the pairs that are taken to be labelled the wrong way round",
       .range = {.min = 0, .max = 0.5, .open_max = true}},
      {.key = "dpo.rpo_alpha",
       .flag = "--dpo-rpo-alpha",
       .field = field<&Recipe::dpo, &B::rpo_alpha>(),
       .verbs = kTrain,
       .help = "Weight of the chosen answers' NLL per token, added to the loss",
       .range = {.min = 0, .max = 1000}},
      {"dpo.reference", "--dpo-reference", field<&Recipe::dpo, &B::reference>(), kTrain,
       "Model or run; empty: this run's own base, unquantized and without adapters"},
  };
}

}  // namespace temper::recipe
