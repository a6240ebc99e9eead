// Groups of elements side by side: lane l of vector i holds element i of group l, so that a search runs on kLanes groups at
// once.
#pragma once

#include "quant/isa/common.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

/// `first(l)` points to the first element of group l.
template <int kElements, typename First>
void transpose(First&& first, Floats* out) {
  float lanes[kElements][kLanes];
  for (int l = 0; l < kLanes; ++l) {
    const float* from = first(l);
    for (int i = 0; i < kElements; ++i) lanes[i][l] = from[i];
  }
  for (int i = 0; i < kElements; ++i) __builtin_memcpy(&out[i], lanes[i], sizeof(Floats));
}

}  // namespace
}  // namespace temper::quant::TEMPER_ISA_LEVEL
