// Activations as products take them. A scheme may round them to a number format, each row (token) on its own: then a codec
// of the table does it, by its own fit, round and decode. llama.cpp's CPU products round on a grid of blocks that goes with
// the weight's format (ggml's vec_dot_type).
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "quant/codec.h"
#include "quant/static_range.h"

namespace temper::quant {

/// Blocks32 (ggml's q8_0 and q8_1, for weights in blocks of 32): d = max |x| / 127, q = rint(x · 127 / max |x|), nearest
/// even; the value is q · f16(d). Super256 (q8_K, for superblocks of 256): s = -127 / m with m the first value of the
/// largest magnitude, q = min(127, rint(s · x)); the value is q / s, with 1 / s rounded to f32 first. None: as they are.
enum class ActivationGrid : std::uint8_t { None, Blocks32, Super256 };

/// What activations are rounded to: a grid of llama.cpp's, or a number format, with the range that is given where it is one
/// of static ranges.
struct InputFormat {
  ActivationGrid grid = ActivationGrid::None;
  const Codec* codec = nullptr;
  StaticRange range = {};

  explicit operator bool() const { return grid != ActivationGrid::None || codec != nullptr; }
  bool operator==(const InputFormat&) const = default;
};

/// The grid that llama.cpp uses with weights in this format; None for formats that are not GGUF's.
ActivationGrid activation_grid(const Codec& codec);

/// out = x on the grid, then rounded to their dtype, F32 or BF16; both [rows, cols], may be the same memory. Finite values
/// below 8e6, beyond which an f16 scale overflows. Throws LogicError if blocks do not divide cols. Serial.
void round_activations(ActivationGrid grid, const TensorView& x, const TensorView& out);

/// out = decode(encode(x)) for each row as a matrix of its own (formats whose parameters rows share find them in that row
/// alone, so that a token's numbers do not depend on its neighbours), rounded to their dtype, F32 or BF16; both [rows,
/// cols], may be the same memory. A row with a NaN or an infinity is copied as it is, so that the loss tells of it. `range`
/// is that of a codec whose range is given. Throws LogicError if the codec's groups do not divide cols. Serial.
void round_activations(const Codec& codec, const TensorView& x, const TensorView& out, const StaticRange& range = {});

/// encode of every row, in `range` where the codec's is given. Serial.
void encode_activations(const Codec& codec, const StaticRange& range, const TensorView& x, std::span<std::byte> encoded);

/// True for formats of activations whose range is given: int8-static-sym, int8-static-asym, fp8-static, nvfp4-static.
bool has_static_range(const Codec& codec);
/// The range, as a file with scales in `scales` (F32, BF16 or F16) stores it, that holds [low, high] and 0. Integers:
/// scale = max|x| / 127.5, or (high − low) / 255 and zero = rint(−128 − low / scale); fp8: max|x| / 448; NVFP4: its global
/// scale 2688 / max|x|, in bf16. All by compressed-tensors 0.20, calculate_qparams and generate_gparam.
StaticRange static_range(const Codec& codec, float low, float high, DType scales);

/// True where rounding clips: a static range that is known, and that groups do not adapt within.
bool clips(const InputFormat& format);

/// The backward pass of rounding to a static range, straight-through with the clamp's mask: `grad` (F32 or x's dtype), given
/// as that of the rounded x, becomes that of x: 0 where x lay outside of what the format holds, by more than half a step
/// (integers) or at all (fp8). Returns the gradients of the range, terms summed in order in double. Throws LogicError unless
/// clips(format). Serial.
RangeGradient clip_backward(const InputFormat& format, const TensorView& x, const TensorView& grad);

/// The format in the arithmetic of activations of that dtype: int8-asym and int8-asym-bf16, fp8-e4m3 and fp8-e4m3-bf16 are
/// one format each, whose parameters peers find and store in the dtype of their values. Formats without such twins are
/// returned as they are; so are static ones: kernels that are given a scale (vLLM's static_scaled_int8_quant and
/// scaled_fp8_quant) find the codes in f32, whatever the values' dtype.
const Codec& in_dtype(const Codec& codec, DType dtype);

/// The formats that activations are rounded to, by the names that schemes and recipes use.
std::span<const std::string> activation_formats();
/// The codec of such a format, in f32 arithmetic. Throws BadRecipe listing them, the nearest suggested.
const Codec& activation_codec(std::string_view name);

}  // namespace temper::quant
