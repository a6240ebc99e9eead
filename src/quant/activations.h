// Activations as products take them. A scheme may round them to a number format, each row (token) on its own: then a codec
// of the table does it, by its own fit, round and decode. llama.cpp's CPU products round on a grid of blocks that goes with
// the weight's format (ggml's vec_dot_type).
#pragma once

#include <cstdint>
#include <span>
#include <string>

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

/// out = decode(encode(x)) for each row as a matrix of its own (formats whose parameters rows share find them in that row
/// alone, so that a token's numbers do not depend on its neighbours), rounded to their dtype, F32 or BF16; both [rows,
/// cols], may be the same memory. A row with a NaN or an infinity is copied as it is, so that the loss tells of it. Throws
/// LogicError if the codec's groups do not divide cols. Serial.
void round_activations(const Codec& codec, const TensorView& x, const TensorView& out);

/// The format in the arithmetic of activations of that dtype: int8-asym and int8-asym-bf16, fp8-e4m3 and fp8-e4m3-bf16 are
/// one format each, whose parameters peers find and store in the dtype of their values. Formats without such twins are
/// returned as they are.
const Codec& in_dtype(const Codec& codec, DType dtype);

/// The formats that activations are rounded to, by the names that schemes and recipes use.
std::span<const std::string> activation_formats();
/// The codec of such a format, in f32 arithmetic. Throws BadRecipe listing them, the nearest suggested.
const Codec& activation_codec(std::string_view name);

}  // namespace temper::quant
