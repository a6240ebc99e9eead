// The small product inside attention: tiles that lie in the cache, with a block of the result held in registers.
//
// Operands are made of 32-bit units along the depth: one f32, or, where the CPU multiplies them, two bf16.
#pragma once

#include "ops/cpu/kernels/simd.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {

// Rows and vectors of a block of the result: enough independent sums to hide each other's latency, few enough registers.
// Where a single vector of columns is left, it is met by more rows.
#if defined(__AVX512F__)
inline constexpr int kBlockRows = 8, kBlockVecs = 2, kNarrowRows = 16;
#elif defined(__AVX2__)
inline constexpr int kBlockRows = 4, kBlockVecs = 1, kNarrowRows = 4;
#else
inline constexpr int kBlockRows = 2, kBlockVecs = 1, kNarrowRows = 2;
#endif

struct F32Unit {
  static constexpr Index kDepth = 1;
  static TEMPER_INLINE Vec multiply_add(const Vec& a, const Vec& b, const Vec& c) {
    return TEMPER_KERNEL_NS::multiply_add(a, b, c);
  }
  /// Sixteen values at column j of a left operand's row.
  static TEMPER_INLINE void put_left(float* row, Index j, const Vec& x) { store(row + j, x); }
  /// The units of kDepth rows, one below the other.
  static TEMPER_INLINE Vec stack(const Vec (&rows)[kDepth]) { return rows[0]; }
  /// The same of rows in memory, `stride` elements apart, that are made of the unit's own elements.
  static TEMPER_INLINE Vec stack_at(const float* rows, Index) { return load(rows); }
};

#if defined(__AVX512BF16__)
/// Even place low, odd place high; values are rounded to nearest even. Subnormal values count as zero.
struct Bf16Unit {
  static constexpr Index kDepth = 2;
  static TEMPER_INLINE Vec multiply_add(const Vec& a, const Vec& b, const Vec& c) {
    Vec r;
    r.part[0] = (NativeF)_mm512_dpbf16_ps((__m512)c.part[0], (__m512bh)a.part[0], (__m512bh)b.part[0]);
    return r;
  }
  static TEMPER_INLINE void put_left(float* row, Index j, const Vec& x) {
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)x.part[0]);
    __builtin_memcpy(reinterpret_cast<Bf16*>(row) + j, &rounded, sizeof(rounded));
  }
  static TEMPER_INLINE Vec stack(const Vec (&rows)[kDepth]) {
    NativeH halves[kDepth];
    for (int i = 0; i < 2; ++i) {
      const __m256bh rounded = _mm512_cvtneps_pbh((__m512)rows[i].part[0]);
      __builtin_memcpy(&halves[i], &rounded, sizeof(rounded));
    }
    Vec r;
    r.part[0] = (NativeF)(__builtin_convertvector(halves[0], NativeU) | __builtin_convertvector(halves[1], NativeU) << 16);
    return r;
  }
  static TEMPER_INLINE Vec stack_at(const Bf16* rows, Index stride) {
    NativeH low, high;
    __builtin_memcpy(&low, rows, sizeof(low));
    __builtin_memcpy(&high, rows + stride, sizeof(high));
    Vec r;
    r.part[0] = (NativeF)(__builtin_convertvector(low, NativeU) | __builtin_convertvector(high, NativeU) << 16);
    return r;
  }
};
#endif

/// Calls body with the unit for operands that come from activations of this type.
template <typename Body>
TEMPER_INLINE void with_unit([[maybe_unused]] Elem type, Body&& body) {
#if defined(__AVX512BF16__)
  if (type == Elem::BF16) return body(Bf16Unit{});
#endif
  body(F32Unit{});
}

/// Unit (i, p) of the left operand is a[i · row + p · depth].
struct LeftOperand {
  const float* a;
  Index row, depth;
};

template <typename Unit, int kRows, int kVecs>
TEMPER_INLINE void tile_block(const LeftOperand& left, const float* b, Index b_stride, float* c, Index c_stride, Index depth,
                              bool accumulate) {
  Vec total[kRows][kVecs];
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVecs; ++v) total[i][v] = accumulate ? load(c + i * c_stride + v * kLanes) : Vec(0.0f);
  for (Index p = 0; p < depth; ++p) {
    Vec right[kVecs];
    for (int v = 0; v < kVecs; ++v) right[v] = load(b + p * b_stride + v * kLanes);
    for (int i = 0; i < kRows; ++i) {
      const Vec x = broadcast(left.a + i * left.row + p * left.depth);
      for (int v = 0; v < kVecs; ++v) total[i][v] = Unit::multiply_add(x, right[v], total[i][v]);
    }
  }
  for (int i = 0; i < kRows; ++i)
    for (int v = 0; v < kVecs; ++v) store(c + i * c_stride + v * kLanes, total[i][v]);
}

/// Which part of a product matters: query i of a tile sees the tile's keys j < i + 1 + shift, a triangle on the diagonal of
/// causal attention. What is left out is zero, or is overwritten by the mask.
struct Limits {
  enum class Edge {
    Columns,     ///< c is [queries, keys].
    DepthEnd,    ///< Left is [queries, keys].
    DepthBegin,  ///< Left is [keys, queries].
  };
  Edge edge;
  Index rows;   ///< Of c.
  Index depth;  ///< Terms of each sum.
  Index shift;

  /// All of it.
  static constexpr Limits none(Index rows, Index depth) { return {Edge::Columns, rows, depth, Index{1} << 40}; }
};

/// c [rows, cols] f32 (= or +=) left [rows, depth] · b [depth, cols], b in rows of units; cols is a multiple of 16, rows of
/// b and c lie `cols` apart. Rows are read and written up to a multiple of kNarrowRows. Sums end with a whole unit: what is
/// beyond the edge in it must be zero in one operand.
template <typename Unit>
inline __attribute__((noinline)) void tile_product(const LeftOperand& left, const float* b, float* c, Index cols,
                                                   const Limits& limits, bool accumulate) {
  // Columns first: a panel of b stays in the nearest cache while rows pass by.
  const auto column = [&](Index n, auto block_rows, auto block_vecs) __attribute__((always_inline)) {
    constexpr int kRows = decltype(block_rows)::value, kVecs = decltype(block_vecs)::value;
    for (Index m = 0; m < limits.rows; m += kRows) {
      const Index reach = m + kRows + limits.shift, start = m - limits.shift;
      if (limits.edge == Limits::Edge::Columns && n >= reach) continue;
      const Index end = limits.edge == Limits::Edge::DepthEnd && reach < limits.depth ? reach : limits.depth;
      const Index begin = limits.edge == Limits::Edge::DepthBegin && start > 0 ? start : 0;
      const Index first = begin / Unit::kDepth, units = (end + Unit::kDepth - 1) / Unit::kDepth - first;
      const LeftOperand rows{left.a + m * left.row + first * left.depth, left.row, left.depth};
      tile_block<Unit, kRows, kVecs>(rows, b + first * cols + n, cols, c + m * cols + n, cols, units, accumulate);
    }
  };
  Index n = 0;
  for (; n + kBlockVecs * kLanes <= cols; n += kBlockVecs * kLanes)
    column(n, Constant<kBlockRows>{}, Constant<kBlockVecs>{});
  for (; n < cols; n += kLanes) column(n, Constant<kNarrowRows>{}, Constant<1>{});
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
