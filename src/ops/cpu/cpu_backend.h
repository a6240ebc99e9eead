// The CPU backend: oneDNN for matrix products, our own kernels for the rest, one compilation of them per instruction set.
//
// Workspace that ops take from the context's arena and give back: the larger of
//   matmul                about 1 MiB per thread; 32 MiB for BF16 operands on a CPU without such products;
//   linear_cross_entropy  the logits of a chunk: at most 64 MiB, half as much again for a BF16 gradient under a cap (more
//   only for V > 1 Mi); linear_distillation   the same twice; attention             8 bytes · keys · kv_heads · head_dim;
//   attention_backward    4 bytes · keys · head_dim · (2 heads + 3 kv_heads), and 12 bytes · longest span · head_dim per
//   thread; merge_and_encode      under 1 MiB per thread for rows of up to 64 Ki values.
// An arena reserves address space and touches what is used, so 1 GiB is a sound choice, 4 GiB for contexts beyond 16 Ki
// tokens.
//
// Results do not depend on the number of threads; they may differ between instruction sets by rounding, but for merge_lora,
// merge_and_encode, decode and convert, which never do.
#pragma once

#include "base/cpu.h"
#include "tensor/exec_context.h"

namespace temper::ops {

/// The backend for the instruction set in use (base/cpu.h).
const Backend& cpu_backend();
/// The backend for one instruction set that this CPU has, for tests.
const Backend& cpu_backend(Isa isa);

}  // namespace temper::ops
