// What stands in for a format whose blocks do not divide the rows of a matrix.
#pragma once

#include "quant/codec.h"

namespace temper::quant {

/// The codec itself where its blocks divide rows of `cols`. Else, of llama.cpp's superblocks of 256, what llama.cpp takes
/// instead (q4_k: q5_0; llama-quant.cpp, 2026), and, of integers in groups, the same in the largest smaller group that does
/// (int4-sym-g128: int4-sym-g64, of rows of 576). Where nothing stands in, the codec itself: callers refuse it.
const Codec* fallback_for(const Codec& codec, std::int64_t cols);

}  // namespace temper::quant
