// Products with weights as they are held, and lookups in them.
#pragma once

#include "base/cpu.h"
#include "ops/cpu/kernels.h"
#include "ops/ops.h"

namespace temper::ops::cpu {

/// ops::linear for checked operands.
void linear(const ExecContext& ctx, Isa isa, const Kernels& kernels, const TensorView& x, std::span<const LinearPart> parts,
            bool accumulate);

/// ops::round_activations for checked operands.
void round_activations(const TensorView& x, const quant::InputFormat& rounding, const TensorView& out);

/// ops::embedding for checked operands.
void embedding(const ExecContext& ctx, const Kernels& kernels, const Weight& table, std::span<const std::int32_t> tokens,
               const TensorView& out);

}  // namespace temper::ops::cpu
