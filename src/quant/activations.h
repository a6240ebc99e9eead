// Activations in 8 bits, as llama.cpp's CPU products take them: the input of a product is rounded on a grid of blocks that
// goes with the weight's format (ggml's vec_dot_type).
#pragma once

#include <cstdint>

#include "quant/codec.h"

namespace temper::quant {

/// Blocks32 (ggml's q8_0 and q8_1, for weights in blocks of 32): d = max |x| / 127, q = rint(x · 127 / max |x|), nearest
/// even; the value is q · f16(d). Super256 (q8_K, for superblocks of 256): s = -127 / m with m the first value of the
/// largest magnitude, q = min(127, rint(s · x)); the value is q / s, with 1 / s rounded to f32 first. None: as they are.
enum class ActivationGrid : std::uint8_t { None, Blocks32, Super256 };

/// The grid that llama.cpp uses with weights in this format; None for formats that are not GGUF's.
ActivationGrid activation_grid(const Codec& codec);

/// out = x on the grid, then rounded to their dtype, F32 or BF16; both [rows, cols], may be the same memory. Finite values
/// below 8e6, beyond which an f16 scale overflows. Throws LogicError if blocks do not divide cols. Serial.
void round_activations(ActivationGrid grid, const TensorView& x, const TensorView& out);

}  // namespace temper::quant
