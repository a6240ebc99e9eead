// Matrix products on the CPU: oneDNN in tiles of our own.
//
// C is cut into tiles whose sizes depend on the shape alone, and each tile is one single-threaded oneDNN product: so the
// sums do not depend on the number of threads, whatever oneDNN would do with several. Few rows (generation) take a kernel of
// our own.
#pragma once

#include "base/cpu.h"
#include "ops/cpu/kernels.h"
#include "ops/ops.h"

namespace temper::ops::cpu {

/// ops::matmul for checked operands. BF16 operands are multiplied as such where `isa` has bf16 products, else in f32.
void matmul(const ExecContext& ctx, Isa isa, const Kernels& kernels, const TensorView& a, const TensorView& b,
            const TensorView& c, const MatmulOptions& options);

}  // namespace temper::ops::cpu
