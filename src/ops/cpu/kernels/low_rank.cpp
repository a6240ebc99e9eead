// The backward pass of a LoRA pair in one pass over tiles of x and dy, while they lie in the cache: two narrow products, and
// two that gather gradients.
#include "ops/cpu/kernels/local.h"
#include "ops/cpu/kernels/pack.h"
#include "ops/cpu/kernels/simd.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {
namespace {

/// Where a tile's operands lie in the scratch.
struct Scratch {
  float *left, *rows, *low, *stacked;

  explicit Scratch(const LoraTask& t) {
    const Index widest = kRowTile * padded(t.in > t.out ? t.in : t.out);
    left = t.scratch;
    rows = left + widest;
    low = rows + widest;
    stacked = low + kRowTile * padded(t.rank);
  }
};

/// low [64, R] = m [rows, cols] · packed. m is read where it lies if its rows are whole units.
template <typename Unit, typename T>
void project(const Rows& m, Index rows, Index cols, const float* packed, Index rank, const Scratch& s) {
  LeftOperand left{static_cast<const float*>(m.data), m.stride / Unit::kDepth, 1};
  const bool whole = Unit::kDepth * sizeof(T) == sizeof(float) && rows % kNarrowRows == 0 && cols % Unit::kDepth == 0 &&
                     m.stride % Unit::kDepth == 0;
  if (!whole) {
    pack_left<Unit, T>(m, rows, cols, s.left);
    left = {s.left, padded(cols) / Unit::kDepth, 1};
  }
  tile_product<Unit>(left, packed, s.low, padded(rank), Limits::none(rows, cols), false);
}

/// grad [R, padded cols] += lowᵀ · m, low rounded to the units' type.
template <typename Unit, typename T>
void gather(const Rows& m, Index rows, Index cols, Index rank, const Scratch& s, float* grad) {
  const Index r = padded(rank);
  for (Index i = 0; i < kRowTile; i += Unit::kDepth)
    for (Index c = 0; c < r; c += kLanes) {
      Vec stacked[Unit::kDepth];
      for (Index d = 0; d < Unit::kDepth; ++d) stacked[d] = i + d < rows ? load(s.low + (i + d) * r + c) : Vec(0.0f);
      store(s.stacked + i / Unit::kDepth * r + c, Unit::stack(stacked));
    }
  pack_rows<Unit, T>(m, rows, cols, s.rows);
  tile_product<Unit>({s.stacked, 1, r}, s.rows, grad, padded(cols), Limits::none(r, rows), true);
}

template <typename Unit, typename T>
void backward(const LoraTask& t, Index begin, Index end) {
  const Scratch s(t);
  const Index r = padded(t.rank);
  for (Index first = begin; first < end; first += kRowTile) {
    const Index rows = end - first < kRowTile ? end - first : kRowTile;
    Rows x = t.x, dy = t.dy;
    x.data = row_of<T>(t.x, first);
    dy.data = row_of<T>(t.dy, first);
    project<Unit, T>(x, rows, t.in, t.a, t.rank, s);
    gather<Unit, T>(dy, rows, t.out, t.rank, s, t.grad_b);
    project<Unit, T>(dy, rows, t.out, t.b, t.rank, s);
    scale(s.low, rows * r, t.scale);
    gather<Unit, T>(x, rows, t.in, t.rank, s, t.grad_a);
    for (Index i = 0; t.dyb.data && i < rows; ++i) {
      T* to = row_of<T>(t.dyb, first + i);
      for_columns(t.rank, [&](Index c, auto get, auto put) { put(to + c, get(s.low + i * r + c)); });
    }
  }
}

}  // namespace

void lora_pack(Rows a, Rows b, Index in, Index out, Index rank, float* packed_a, float* packed_b) {
  with_types(a.type, [&](auto unit, auto* tag) {
    using Unit = decltype(unit);
    using T = TEMPER_TYPE(tag);
    pack_columns<Unit, T>(a, rank, in, padded(rank), packed_a);
    pack_rows<Unit, T>(b, out, rank, packed_b);
  });
}

void lora_backward(const LoraTask& task, Index begin, Index end) {
  with_types(task.x.type, [&](auto unit, auto* tag) { backward<decltype(unit), TEMPER_TYPE(tag)>(task, begin, end); });
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
