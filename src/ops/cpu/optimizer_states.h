// Optimizer states in narrow types, a block at a time: widened to F32, stepped, rounded again.
#pragma once

#include <functional>

#include "ops/cpu/kernels.h"
#include "ops/ops.h"

namespace temper::ops::cpu {

/// One state of a step.
struct StatePart {
  const OptimizerState& state;
  bool is_signed;  ///< Which dynamic map codes belong to.
};

/// Steps blocks of kStateBlock parameters: `step(begin, n, widened)` gets pointers to the states' values as F32, in order,
/// to be updated in place; at most two states.
void step_blocks(const Kernels& kernels, Index parameters, std::initializer_list<StatePart> states, std::int64_t step_number,
                 const StateDraws& draws, const std::function<void(Index begin, Index n, float* const* widened)>& step);

}  // namespace temper::ops::cpu
