// The architecture whose projections tests of adapters are about.
#pragma once

#include <string_view>

#include "model/arch.h"

namespace temper::testing {

/// Two layers of 64, queries of 96 and keys of 48, an MLP of 80, tied: the shapes that the adapter in tests/data/peft was
/// made for.
inline model::ArchSpec adapted_arch(std::string_view family = "llama") {
  model::ArchSpec arch;
  arch.architecture = &model::architecture_of_hf(family, "");
  arch.hidden_size = 64;
  arch.intermediate_size = 80;
  arch.num_layers = 2;
  arch.num_heads = 4;
  arch.num_kv_heads = 2;
  arch.head_dim = 24;
  arch.vocab_size = 80;
  arch.max_positions = 64;
  arch.tied = true;
  return arch;
}

}  // namespace temper::testing
