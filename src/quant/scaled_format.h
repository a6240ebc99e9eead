// Formats of groups that share a scale: integers and small floats as torchao, OCP MX, NVFP4, compressed-tensors and
// bitsandbytes define them. A format is a value: what an element is, the rule that finds a group's parameters (and in which
// arithmetic), how the scale is stored, how many elements share it. This file and scaled_format.cpp hold the arithmetic of
// groups, which the scalar definition (scaled_codec.cpp) and the fast kernels (isa/scaled.cpp) both use; elements are
// theirs.
//
// Encoded row: | header | group 0 | group 1 | … ; group: | scale | zero point | codes |
//     header  NVFP4: f32 tensor scale; double quantization: f32 offset, f32 absmax of the absmaxes of each block of 256 that
//             the row touches, u16 how many of the row's groups belong to the first of them. Else nothing.
//     scale   f32, bf16, f16, E8M0, E4M3, or the 8-bit dynamic code of an absmax.
//     zero    asym, ctasym: i8. tinygemm: as the scale. Else nothing.
//     codes   chunks of 32 elements (of 16 if the group has 16), the last one padded with zero bits; 8-bit codes a byte
//     each,
//             the others in planes: for 4 of the bits, byte j holds elements j and j + n/2, low bits first; for 2 bits j, j
//             + n/4, …; for 1 bit, bit j. 3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2 bits, the lower bits in the first plane. Integers
//             are stored plus 2^(bits-1), 8-bit ones in two's complement; floats sign first; nf4 and fp4 as indices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/scalar.h"

namespace temper::quant {

enum class Element : std::uint8_t { Int2, Int3, Int4, Int5, Int6, Int8, E4M3, E5M2, E2M3, E3M2, E2M1, Nf4, Fp4 };

int element_bits(Element element);
/// The format of a small float, or nullptr for integers and tables.
const SmallFloat* small_float(Element element);
/// Values of the 16 codes of Nf4 or Fp4.
std::span<const float, 16> code_values(Element element);

/// How parameters are found, and elements rounded with them. R rounds to the type of the scale; b bits: q from -2^(b-1) to
/// 2^(b-1) - 1; a = max |w|; hi, lo = extremes with zero among them; half = (2^b - 1) / 2. w' is what decode gives.
enum class Mapping : std::uint8_t {
  Sym,       ///< torchao IntxFakeQuantizer, symmetric: s = max(R(a/half), smallest normal), q = rint(R(w·R(1/s))).
  SymEps,    ///< torchao Int8Tensor: s = max(R(a/half), 2^-23), q = rint(w·(1/s)) in f32.
  SymFull,   ///< torchao's fp8-int4 fake quantizer: s = max(R(a/2^(b-1)), 1e-6), q as sym.
  MslkSym,   ///< torchao Int4Tensor for fp8 activations: s = max(a, 1e-6)/2^(b-1), q = rint(w/s) in f32; s then stored.
  CtSym,     ///< compressed-tensors: s = R(a/half), or R's epsilon if that is 0, q = rint(R(w/s)).
  Asym,      ///< torchao IntxFakeQuantizer, asymmetric: s = max(R(R(hi-lo)/(2^b-1)), smallest normal),
             ///< z = clip(R(qmin - rint(R(lo/s)))), q = rint(R(w·R(1/s))) + z, w' = (q - z)·s.
  CtAsym,    ///< compressed-tensors: s = R(R(hi-lo)/(2^b-1)), z = rint(clip(R(qmin - R(lo/s)))), q = rint(R(R(w/s) + z)).
  Tinygemm,  ///< torchao Int4WeightFakeQuantizer and Int4Tensor, in f32: s = max(max-min, 1e-6)/(2^b-1), z = min +
             ///< s·2^(b-1), q = rint((w-min)/s) - 2^(b-1), w' = q·s + z, s and z as stored. Zero need not be among them.
  Fp8,       ///< torchao Float8Tensor: s = R(a/largest), q = float(w/s).
  CtFp8,     ///< compressed-tensors: s = R(a/largest), or R's epsilon if that is 0, q = float(R(w/s)).
  MxCeil,    ///< MX, scale 2^e, RCEIL of torchao and cuBLAS: e = ceil(log2(a/largest)).
  MxFloor,   ///< OCP MX 1.0: e = floor(log2 a) - floor(log2 largest).
  MxEven,    ///< torchao EVEN: as floor, a first rounded at the element's mantissa.
  MxCt,      ///< compressed-tensors: as floor, a first rounded at 1 bit of mantissa (3 for E2M3).
  Nv,        ///< torchao NVFP4Tensor: tensor scale t = A/2688 (A of the tensor), scale e4m3((a/6)/t) within [2^-6, 448],
             ///< q = e2m1(w·((1/t)/scale)), w' = q·(t·scale).
  NvLocal,   ///< The same without a tensor scale (t = 1).
  NvCt,  ///< compressed-tensors NVFP4: g = bf16(2688/A), scale e4m3(g·bf16(a/6)), 0.125 if that is 0, q = e2m1(w/(scale/g)).
  Absmax,        ///< bitsandbytes: scale a, q = nearest of 16 values to w·(1/a).
  AbsmaxDouble,  ///< The same; absmaxes are stored less their mean over the matrix, in the 8-bit dynamic map, with an absmax
                 ///< of their own for each 256 of the matrix in order.
};

enum class ScaleType : std::uint8_t { F32, BF16, F16, E8M0, E4M3, Dynamic8 };

/// What shares a parameter across rows.
enum class Sharing : std::uint8_t { None, Tensor, Band };
inline constexpr std::int64_t kBandRows = 128;

struct ScaledFormat {
  std::string name;
  Element element;
  Mapping mapping;
  ScaleType scale = ScaleType::F32;
  std::int64_t group = 0;  ///< Elements; 0: the whole row.
  Sharing sharing = Sharing::None;
  bool fixed = false;  ///< Of activations: their range is given (static_range.h), not found in each row.

  int bits() const { return element_bits(element); }
  bool integer() const { return element <= Element::Int8; }
  /// True if the rule looks at the extremes of a group, false if at its largest magnitude.
  bool asymmetric() const { return mapping == Mapping::Asym || mapping == Mapping::CtAsym || mapping == Mapping::Tinygemm; }
  std::size_t scale_bytes() const;
  std::size_t zero_bytes() const;
  std::size_t code_bytes(std::int64_t elements) const;
  std::size_t group_bytes(std::int64_t elements) const { return scale_bytes() + zero_bytes() + code_bytes(elements); }
  std::size_t header_bytes(std::int64_t groups) const;
  /// Parameters of a row: header_params, then group_params of each group.
  std::int64_t header_params(std::int64_t groups) const;
  std::int64_t group_params() const { return asymmetric() ? 2 : 1; }
};

/// "int4-sym-g32", "int3-asym-g64-bf16", "int8-symeps", …: int<bits>-<rule>[-g<group>][-bf16|-f16]. nullopt for other names
/// and for combinations that are not defined (bits 2, 3, 4, 5, 6, 8; groups 32, 64, 128, 256 or none; static-sym and
/// static-asym, whose range is given, are those of compressed-tensors in 8 bits, and always of f32 arithmetic).
std::optional<ScaledFormat> parse_int_format(std::string_view name);
/// The floating formats, by their names.
std::span<const ScaledFormat> float_formats();

// ---- Arithmetic of groups ----

/// The values of a group in short: the largest magnitude in `high`, or the extremes.
struct Extent {
  float low, high;
};

/// How the arithmetic of an element's rounding goes, before the nearest code is taken. From Divide on, by the scale.
enum class Arithmetic : std::uint8_t {
  Multiply,
  MultiplyBf16,
  MultiplyF16,  ///< R(w·factor)
  Divide,
  DivideBf16,  ///< R(w/factor)
  DivideAdd,
  DivideAddBf16,
  DivideAddF16,  ///< R(R(w/factor) + shift)
  ShiftDivide,   ///< (w - shift)/factor
};
Arithmetic arithmetic(const ScaledFormat& format);

/// What rounds a group's elements. Integers: q = rint(clip(t, low, high)) + zero, t as `arithmetic` says.
struct Rounding {
  float factor, shift, low, high;
  std::int32_t zero;
};

/// What decodes a group: (q - zero)·scale, plus `shift` for Tinygemm.
struct Decoding {
  float scale, shift;
  std::int32_t zero;
};

/// Parameters of a row from the extents of its groups. `params` has header_params + groups · group_params floats.
void fit_groups(const ScaledFormat& format, std::span<const Extent> extents, std::span<float> params);
/// Joins the parameters of all rows of a matrix; `per_row` floats each.
void join_rows(const ScaledFormat& format, std::span<float> params, std::int64_t rows, std::int64_t groups);
/// The parameters of group g of a row with `groups` of them, as those of a row that has no other.
void extract_group(const ScaledFormat& format, std::span<const float> params, std::int64_t groups, std::int64_t g,
                   std::span<float> out);
/// Writes a row's header, scales and zero points from its parameters, and how its groups are rounded, for groups [first,
/// first + roundings.size()) of `groups`; `row` is the encoded row.
void store_groups(const ScaledFormat& format, std::span<const float> params, std::int64_t first, std::int64_t groups,
                  std::int64_t elements, std::byte* row, std::span<Rounding> roundings);
/// How groups are rounded with what store_groups wrote: their stored parameters.
void stored_roundings(const ScaledFormat& format, const std::byte* row, std::int64_t first, std::int64_t groups,
                      std::int64_t elements, std::span<Rounding> roundings);
/// The stored scale at `scale`, F32, BF16 or F16, times `factor`, rounded to its type.
void multiply_scale(const ScaledFormat& format, std::byte* scale, float factor);
/// True if the scale, or Tinygemm's zero point behind it, is not finite or at the end of its type.
bool parameters_overflow(const ScaledFormat& format, const std::byte* group);
/// Reads what store_groups wrote.
void load_groups(const ScaledFormat& format, const std::byte* row, std::int64_t first, std::int64_t groups,
                 std::int64_t elements, std::span<Decoding> decodings);

}  // namespace temper::quant
