// Dynamic allocation of bits: `temper plan`, and `temper quantize` under a budget.
#pragma once

#include <vector>

#include "recipe/recipe.h"
#include "temper/temper.h"
#include "tensor/exec_context.h"

namespace temper::api {

inline bool has_budget(const Recipe& recipe) { return !recipe.quant.size.empty() || recipe.quant.bits > 0; }

/// Chooses formats within recipe.quant's budget, measures what they cost, and writes the GGUF recipe.out.
Outcome quantize_within(const ExecContext& ctx, const Recipe& recipe);

}  // namespace temper::api
