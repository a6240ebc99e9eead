// Kernels of LLM.int8's activations: see quant/llm_int8.cpp.
#pragma once

#include "quant/row_kernels.h"

namespace temper::quant {

TEMPER_PER_ISA(RowKernels, kLlmInt8Rows)

}  // namespace temper::quant
