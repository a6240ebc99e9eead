// Row kernels of the GGUF formats with superblocks of 256 elements: see k_quants.cpp.
#pragma once

#include "quant/row_kernels.h"

namespace temper::quant {

TEMPER_PER_ISA(RowKernels, kQ2KRows)
TEMPER_PER_ISA(RowKernels, kQ3KRows)
TEMPER_PER_ISA(RowKernels, kQ4KRows)
TEMPER_PER_ISA(RowKernels, kQ5KRows)
TEMPER_PER_ISA(RowKernels, kQ6KRows)

TEMPER_PER_ISA(SearchKernels, kQ2KSearch)
TEMPER_PER_ISA(KeptKernels, kQ2KKept)
TEMPER_PER_ISA(SearchKernels, kQ3KSearch)
TEMPER_PER_ISA(KeptKernels, kQ3KKept)
TEMPER_PER_ISA(SearchKernels, kQ4KSearch)
TEMPER_PER_ISA(KeptKernels, kQ4KKept)
TEMPER_PER_ISA(SearchKernels, kQ5KSearch)
TEMPER_PER_ISA(KeptKernels, kQ5KKept)
TEMPER_PER_ISA(SearchKernels, kQ6KSearch)
TEMPER_PER_ISA(KeptKernels, kQ6KKept)

}  // namespace temper::quant
