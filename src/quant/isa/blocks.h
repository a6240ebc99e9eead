// Row kernels of the GGUF formats with blocks of 32 elements: see q4_0.cpp, q8_0.cpp, q4_1.cpp and q5.cpp.
#pragma once

#include "quant/row_kernels.h"

namespace temper::quant {

TEMPER_PER_ISA(RowKernels, kQ40Rows)
TEMPER_PER_ISA(RowKernels, kQ80Rows)
TEMPER_PER_ISA(RowKernels, kQ41Rows)
TEMPER_PER_ISA(RowKernels, kQ50Rows)
TEMPER_PER_ISA(RowKernels, kQ51Rows)
TEMPER_PER_ISA(KeptKernels, kQ40Kept)
TEMPER_PER_ISA(KeptKernels, kQ80Kept)
TEMPER_PER_ISA(KeptKernels, kQ41Kept)
TEMPER_PER_ISA(KeptKernels, kQ50Kept)
TEMPER_PER_ISA(KeptKernels, kQ51Kept)

}  // namespace temper::quant
