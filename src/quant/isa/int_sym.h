// Row kernels of symmetric integers: see int_sym.cpp.
#pragma once

#include "quant/row_kernels.h"

namespace temper::quant {

TEMPER_PER_ISA(RowKernels, kInt4SymRows)
TEMPER_PER_ISA(RowKernels, kInt8SymRows)

}  // namespace temper::quant
