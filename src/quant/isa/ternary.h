// Kernels of tq1_0 and tq2_0: see ternary.cpp.
#pragma once

#include "quant/row_kernels.h"

namespace temper::quant {

TEMPER_PER_ISA(RowKernels, kTq1Rows)
TEMPER_PER_ISA(RowKernels, kTq2Rows)

}  // namespace temper::quant
