// Rows of activations as operands of tile products (tile_product.h), zero beyond the last row and column.
#pragma once

#include "ops/cpu/kernels/tile_product.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {

/// n is a multiple of 16.
inline void fill(float* x, Index n, float value) {
  for (Index i = 0; i < n; i += kLanes) store(x + i, Vec(value));
}

/// Rows of x as a left operand, [rows up to a multiple of 64, padded_cols / kDepth] units.
template <typename Unit, typename T>
void pack_left(const Rows& x, Index rows, Index cols, float* out) {
  const Index units = padded(cols) / Unit::kDepth;
  for (Index i = 0; i < rows; ++i) {
    const T* row = row_of<T>(x, i);
    for_columns(cols, [&](Index c, auto get, auto) { Unit::put_left(out + i * units, c, get(row + c)); });
  }
  fill(out + rows * units, (row_tiles(rows) * kRowTile - rows) * units, 0.0f);
}

/// Rows of x as a right operand that is deep in rows, [rows up to a multiple of 64 / kDepth, padded_cols] units.
template <typename Unit, typename T>
void pack_rows(const Rows& x, Index rows, Index cols, float* out) {
  const Index dim = padded(cols);
  Index i = 0;
  for (; i < rows; i += Unit::kDepth) {
    float* to = out + i / Unit::kDepth * dim;
    for_columns(cols, [&](Index c, auto get, auto) {
      if constexpr (Unit::kDepth * sizeof(T) == sizeof(float)) {
        if (i + Unit::kDepth <= rows && c + kLanes <= cols)
          return store(to + c, Unit::stack_at(row_of<T>(x, i) + c, x.stride));
      }
      Vec stacked[Unit::kDepth];
      for (Index r = 0; r < Unit::kDepth; ++r) stacked[r] = i + r < rows ? get(row_of<T>(x, i + r) + c) : Vec(0.0f);
      store(to + c, Unit::stack(stacked));
    });
  }
  fill(out + i / Unit::kDepth * dim, (row_tiles(rows) * kRowTile - i) / Unit::kDepth * dim, 0.0f);
}

/// Rows of x as a right operand that is deep in columns: `width` rows after the other, each [padded / kDepth, width] units;
/// width is a multiple of 16.
template <typename Unit, typename T>
void pack_columns(const Rows& x, Index rows, Index cols, Index width, float* out) {
  const Index depth = padded(cols) / Unit::kDepth, total = (rows + width - 1) / width * width;
  constexpr Index kUnits = kLanes / Unit::kDepth;
  for (Index first = 0; first < total; first += kLanes) {  // sixteen rows become sixteen lanes
    float* tile = out + first / width * width * depth + first % width;
    for_columns(cols, [&](Index c, auto get, auto) {
      float lanes[kLanes][kUnits];
      for (Index i = 0; i < kLanes; ++i)
        Unit::put_left(lanes[i], 0, first + i < rows ? get(row_of<T>(x, first + i) + c) : Vec(0.0f));
      for (Index j = 0; j < kUnits; ++j)
        for (Index i = 0; i < kLanes; ++i) __builtin_memcpy(&tile[(c / Unit::kDepth + j) * width + i], &lanes[i][j], 4);
    });
  }
}

/// Calls body with the unit of products and the type of activations.
template <typename Body>
TEMPER_INLINE void with_types(Elem type, Body&& body) {
  with_unit(type, [&](auto unit) { with_activation(type, [&](auto* tag) { body(unit, tag); }); });
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
