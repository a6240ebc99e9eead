// Products of 8-bit activations with integer weights (quant/int_product.h), cut among threads.
#pragma once

#include <span>

#include "ops/ops.h"

namespace temper::ops::cpu {

/// ops::linear for parts all of which multiplies_integers. Rows of x are rounded once for all parts that agree.
void integer_linear(const ExecContext& ctx, const TensorView& x, std::span<const LinearPart> parts, bool accumulate);

}  // namespace temper::ops::cpu
