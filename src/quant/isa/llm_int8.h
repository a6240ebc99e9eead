// Kernels of LLM.int8's activations: see quant/llm_int8.cpp.
#pragma once

#include "quant/row_kernels.h"

namespace temper::quant {

inline constexpr float kOutlierThreshold = 6.0f;           ///< |f16(x)| from here on is an outlier.
inline constexpr float kInt8Step = 7.874015718698502e-3f;  ///< f32(1 / 127)

TEMPER_PER_ISA(RowKernels, kLlmInt8Rows)

}  // namespace temper::quant
