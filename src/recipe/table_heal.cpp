// Options of temper heal, beside those of training that it takes (table.cpp).
#include "recipe/table.h"

namespace temper::recipe {

std::vector<Option> heal_options() {
  return {
      {.key = "heal.tokens",
       .flag = "--tokens",
       .field = field<&Recipe::heal, &H::tokens>(),
       .verbs = kHeal,
       .help = "Text that the model writes for itself and learns from",
       .unit = "tokens",
       .range = {.min = 1, .max = 1e12}},
      {.key = "heal.length",
       .flag = "--length",
       .field = field<&Recipe::heal, &H::length>(),
       .verbs = kHeal,
       .help = "Of each piece of it",
       .unit = "tokens",
       .range = {.min = 8, .max = 1 << 20}},
      {.key = "heal.held_out_tokens",
       .flag = "--held-out-tokens",
       .field = field<&Recipe::heal, &H::held_out_tokens>(),
       .verbs = kHeal,
       .help = "More of it, to measure on",
       .unit = "tokens",
       .range = {.min = 1, .max = 1e12}},
      {.key = "heal.temperature",
       .flag = "--temperature",
       .field = field<&Recipe::heal, &H::temperature>(),
       .verbs = kHeal,
       .help = "Of sampling; 1: the model's own distribution",
       .range = {.min = 0, .max = 10}},
      {.key = "heal.seed",
       .flag = "--text-seed",
       .field = field<&Recipe::heal, &H::seed>(),
       .verbs = kHeal,
       .help = "Of sampling",
       .range = kSeed},
      {.key = "heal.batch",
       .flag = "--side-by-side",
       .field = field<&Recipe::heal, &H::batch>(),
       .verbs = kHeal,
       .help = "Pieces written side by side; 0: as many as 512 MB of keys and values hold, 1 to 32",
       .range = {.min = 0, .max = 4096}},
      {"heal.folder", "--work-folder", field<&Recipe::heal, &H::folder>(), kHeal,
       "Where text, run and report are kept, to be gone on with and used again; empty: OUT.heal"},
  };
}

}  // namespace temper::recipe
