// Products as the device computes them: activations in 8 bits times integer weights, summed up in 32 bits.
//
// The definition, for x [M, K] in codes a with zero point z (0 where the format has none) and scale sx, and a weight w [N,
// K] in groups of codes q with scale sw and, in some formats, a minimum:
//     dot(m, n, g) = Σ over k of group g of (a[m, k] - z[m]) · q[n, k]                          exact
//     y(m, n)      = sx[m] · Σ_g float(dot) · sw[n, g]                                          a scale per token, or
//     y(m, n)      = Σ_g float(dot) · (sw[n, g] · sx[m, g])                                     one per 32 of a row,
// where groups with a minimum add, after their dot, minimum[n, g] · (Σ_k of (a - z), in the second case times sx). Groups in
// order of k, every product and every sum rounded to f32 on its own: the same bits on every instruction set, whatever the
// threads. That is the product of decode(x) and decode(w) up to the rounding of the sum over groups.
#pragma once

#include <cstdint>
#include <vector>

#include "base/cpu.h"
#include "quant/activations.h"
#include "quant/codec.h"

namespace temper::quant {

/// True if weights in `weight`, in rows of `cols`, are multiplied as integers with activations in `input`, a grid or a codec
/// that holds each row in bytes with one scale and, at most, a zero point (int8-sym, int8-asym, …): integers of 4 and 8 bits
/// (int4-sym-g32, …, int4-asym, int4-tinygemm; int8-sym, …), q4_0 … q8_0 and q2_k … q6_k; grids only with GGUF's.
bool has_integer_product(const Codec& weight, const InputFormat& input, std::int64_t cols);

/// Activations in 8 bits, in memory of an arena.
struct IntegerInput {
  InputFormat format;
  std::int64_t cols = 0, sum_group = 0;
  TensorView codes;   ///< U8 [M, cols rounded up to 64]: codes plus 128.
  TensorView scales;  ///< F32 [M, 1], or [M, cols/32] on a grid.
  TensorView zeros;   ///< I32 [M, 1]: zero points plus 128; null where the format has none.
  TensorView sums;    ///< F32 [M, groups]: sums of the activations that minima are multiplied with; null if sum_group is 0.

  /// `sum_group` is that of the weights (minimum_group).
  IntegerInput(Arena& arena, const InputFormat& format, std::int64_t rows, std::int64_t cols, std::int64_t sum_group);
  /// Rounds rows [begin, end) of x (F32 or BF16). Serial.
  void round(const TensorView& x, std::int64_t begin, std::int64_t end) const;
};

/// Elements that share a minimum in a format that has them, else 0.
std::int64_t minimum_group(const Codec& weight, std::int64_t cols);

/// y [rows of x in [first, last), N] (= or, with `accumulate`, += in F32) x · weightᵀ; y F32 or BF16. Serial (callers cut
/// the rows of both among threads). x.sum_group is minimum_group of the weights, where they have minima.
void integer_product(const EncodedView& weights, const IntegerInput& x, std::int64_t first, std::int64_t last,
                     const TensorView& y, bool accumulate);

/// Rows of weights that are unpacked together: where to cut them among threads.
std::int64_t integer_panel_rows();

/// Kernels that there are for the instruction sets of x86-64, and the one in use: that of active_isa(), or the one that was
/// set last, which the CPU must have; for tests and benchmarks.
enum class IntKernels : std::uint8_t { Generic, Avx2, Avx2Vnni, Avx512Vnni };
std::vector<IntKernels> available_int_kernels();
IntKernels int_kernels_of(Isa isa);
void set_int_kernels(IntKernels kernels);

}  // namespace temper::quant
