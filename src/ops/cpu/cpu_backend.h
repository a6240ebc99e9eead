// The CPU backend: oneDNN for matrix products, our own kernels for the rest, one compilation of them per instruction set.
#pragma once

#include "base/cpu.h"
#include "tensor/exec_context.h"

namespace temper::ops {

/// The backend for the instruction set in use (base/cpu.h).
const Backend& cpu_backend();
/// The backend for one instruction set that this CPU has, for tests.
const Backend& cpu_backend(Isa isa);

}  // namespace temper::ops
