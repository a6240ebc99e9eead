// Kernels of iq4_nl and iq4_xs: see iq4_format.h.
#pragma once

#include "quant/row_kernels.h"

namespace temper::quant {

TEMPER_PER_ISA(RowKernels, kIq4NlRows)
TEMPER_PER_ISA(RowKernels, kIq4XsRows)
TEMPER_PER_ISA(SearchKernels, kIq4NlSearch)
TEMPER_PER_ISA(SearchKernels, kIq4XsSearch)
TEMPER_PER_ISA(KeptKernels, kIq4NlKept)
TEMPER_PER_ISA(KeptKernels, kIq4XsKept)

}  // namespace temper::quant
