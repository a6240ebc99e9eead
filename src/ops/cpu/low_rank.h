// The backward pass of a LoRA pair.
#pragma once

#include "ops/cpu/kernels.h"
#include "ops/ops.h"

namespace temper::ops::cpu {

/// ops::lora_backward for checked operands.
void lora_backward(const ExecContext& ctx, const Kernels& kernels, const TensorView& x, const TensorView& dy,
                   const LoraGradients& lora, const TensorView* dyb);

}  // namespace temper::ops::cpu
