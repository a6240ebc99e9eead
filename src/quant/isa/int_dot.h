// Kernels of products of 8-bit activations with integer weights (quant/int_product.h): the same source compiled once per
// instruction set (isa/int_dot.cpp), all giving the same bits.
//
// Rows of weights are multiplied a panel at a time, unpacked to bytes whose four neighbours along the row lie next to those
// of the next row: what one instruction multiplies with four activations and adds up in 32 bits.
#pragma once

#include <cstdint>

#include "quant/scaled_format.h"

namespace temper::quant {

/// How an encoded row is unpacked. Nibbles, Bytes: scaled formats of 4 and 8 bits; the others are GGUF's.
enum class IntRule : std::uint8_t { None, Nibbles, Bytes, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K };

struct IntFormat {
  IntRule rule = IntRule::None;
  bool minima = false;               ///< Groups have a minimum: w = code · scale + minimum.
  bool zero_points = false;          ///< Nibbles: groups have one, in a byte.
  ScaleType scale = ScaleType::F32;  ///< Nibbles, Bytes: F32, BF16 or F16.
  std::int64_t group = 0;            ///< Elements that share a scale.
};

/// Rows of weights side by side; R rows, those that are missing being zeros.
struct IntPanel {
  std::int8_t* codes;          ///< [groups, quads, R, 4]
  float *scales, *minima;      ///< [groups, R]; minima null where there are none.
  std::int32_t* sums;          ///< [groups, R]: of the codes.
  std::int64_t groups, quads;  ///< quads: fours of elements in a group, the last ones zeros where the row ends.
};

struct PackTask {
  IntFormat format;
  const unsigned char* weights;  ///< Encoded rows, row_bytes apart.
  std::int64_t rows, row_bytes, cols;
  std::int8_t* scratch;  ///< kPackRows · groups · quads · 4 bytes.
};
inline constexpr std::int64_t kPackRows = 16;  ///< Rows unpacked before they are turned.

/// out[m, n] = or += Σ over groups g in order of float(Σ_k (x[m, k] - zero) · code[n, k]) · scale, plus minimum · x_sums[m,
/// g]; the inner sum in int32. Products and sums in f32, each rounded. scale is that of the weights times, where x has one
/// for each 32 elements, x's; else the total is multiplied by x's in the end.
enum class IntOutput : std::uint8_t { F32, AddF32, BF16 };
struct IntTask {
  IntPanel panel;
  const unsigned char* x;  ///< Codes plus 128: [m, groups · quads · 4] and more, rows x_stride apart.
  std::int64_t m, x_stride;
  const std::int32_t* zeros;  ///< [m], plus 128; null: all 128.
  const float* x_scales;      ///< [m], or [m, cols/32].
  std::int64_t scale_stride;  ///< 0 for [m].
  const float* x_sums;        ///< [m, groups], rows sum_stride apart; null where there are no minima.
  std::int64_t sum_stride;
  IntOutput type;
  void* out;                       ///< [m, count], rows out_stride elements apart.
  std::int64_t out_stride, count;  ///< count: rows of the panel that there are.
};

/// Memory for a product with few rows of x.
inline constexpr int kFewRows = 8;
struct FewMemory {
  std::int8_t* codes;  ///< kFewRows · x_stride
  std::int32_t* sums;  ///< kFewRows · groups, as the others
  float *scales, *minimum_sums;
};
/// The product of task.m rows of x with all of the encoded rows (task.count), unpacked in registers; the task's panel and
/// the weights' scratch are not used. False, and nothing done, where there is no kernel: of more than kFewRows rows, of rows
/// that are no multiple of 16, of superblocks with zero points in x.
using FewRowsKernel = bool (*)(const PackTask& weights, const IntTask& task, const FewMemory& memory);

struct IntTable {
  std::int64_t panel_rows;  ///< R
  void (*pack)(const PackTask& task, const IntPanel& panel);
  void (*product)(const IntTask& task);
  FewRowsKernel few_rows;  ///< Null where the instruction set has none.
  /// Signed codes plus 128, and the sums of groups of such codes, less `zero` each.
  void (*to_unsigned)(const signed char* codes, std::int64_t n, unsigned char* out);
  void (*sums)(const unsigned char* codes, std::int64_t n, std::int64_t group, std::int32_t zero, float* sums);
};

}  // namespace temper::quant
