// Kernels of GGUF's mxfp4 and nvfp4: see gguf_fp4.cpp.
#pragma once

#include "quant/row_kernels.h"

namespace temper::quant {

TEMPER_PER_ISA(RowKernels, kGgufMxfp4Rows)
TEMPER_PER_ISA(RowKernels, kGgufNvfp4Rows)
TEMPER_PER_ISA(KeptKernels, kGgufMxfp4Kept)
TEMPER_PER_ISA(KeptKernels, kGgufNvfp4Kept)

}  // namespace temper::quant
