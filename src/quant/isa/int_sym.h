// Row kernels of int4-sym and int8-sym with f32 scales (scaled_format.h, Mapping::Sym), by whole rows.
#pragma once

#include "quant/row_kernels.h"

namespace temper::quant {

TEMPER_PER_ISA(RowKernels, kInt4SymRows)
TEMPER_PER_ISA(RowKernels, kInt8SymRows)

}  // namespace temper::quant
