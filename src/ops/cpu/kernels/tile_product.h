// The small product inside attention: f32 tiles that lie in the cache, with a block of the result held in registers.
#pragma once

#include "ops/cpu/kernels/simd.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {

#if defined(__AVX512F__)
inline constexpr int kBlockRows = 8, kBlockVecs = 2;  // 16 of 32 registers
#elif defined(__AVX2__)
inline constexpr int kBlockRows = 4, kBlockVecs = 1;  // 8 of 16 registers
#else
inline constexpr int kBlockRows = 2, kBlockVecs = 1;
#endif

/// Element (i, p) of the left operand is a[i · row + p · depth].
struct LeftOperand {
  const float* a;
  Index row, depth;
};

template <int kVecs>
TEMPER_INLINE void tile_block(const LeftOperand& left, const float* b, Index b_stride, float* c, Index c_stride, Index depth,
                              bool accumulate) {
  Vec total[kBlockRows][kVecs];
  for (int i = 0; i < kBlockRows; ++i)
    for (int v = 0; v < kVecs; ++v) total[i][v] = accumulate ? load(c + i * c_stride + v * kLanes) : Vec(0.0f);
  for (Index p = 0; p < depth; ++p) {
    Vec right[kVecs];
    for (int v = 0; v < kVecs; ++v) right[v] = load(b + p * b_stride + v * kLanes);
    for (int i = 0; i < kBlockRows; ++i) {
      const Vec x(left.a[i * left.row + p * left.depth]);
      for (int v = 0; v < kVecs; ++v) total[i][v] = multiply_add(x, right[v], total[i][v]);
    }
  }
  for (int i = 0; i < kBlockRows; ++i)
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
  Index rows;   ///< Of c, at most 64.
  Index depth;  ///< Terms of each sum.
  Index shift;
};

/// c [64, cols] (= or +=) left [64, depth] · b [depth, cols]; cols is a multiple of 16, rows of b and c lie `cols` apart.
inline __attribute__((noinline)) void tile_product(const LeftOperand& left, const float* b, float* c, Index cols,
                                                   const Limits& limits, bool accumulate) {
  for (Index m = 0; m < limits.rows; m += kBlockRows) {
    const Index reach = m + kBlockRows + limits.shift, start = m - limits.shift;
    const Index end = limits.edge == Limits::Edge::DepthEnd && reach < limits.depth ? reach : limits.depth;
    const Index begin = limits.edge == Limits::Edge::DepthBegin && start > 0 ? start : 0;
    const Index width = limits.edge == Limits::Edge::Columns && reach < cols ? reach : cols;
    const LeftOperand rows{left.a + m * left.row + begin * left.depth, left.row, left.depth};
    Index n = 0;
    const auto columns = [&](auto vecs) {
      constexpr int kVecs = decltype(vecs)::value;
      tile_block<kVecs>(rows, b + begin * cols + n, cols, c + m * cols + n, cols, end - begin, accumulate);
      n += kVecs * kLanes;
    };
    while (n + kBlockVecs * kLanes <= cols && n < width) columns(Constant<kBlockVecs>{});
    while (n < width) columns(Constant<1>{});
  }
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
