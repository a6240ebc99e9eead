// From tensor views to what kernels take.
#pragma once

#include <algorithm>
#include <functional>

#include "base/parallel.h"
#include "ops/cpu/kernels.h"
#include "tensor/exec_context.h"

namespace temper::ops::cpu {

inline Rows rows_of(const TensorView& x, Index first_row = 0) {
  const Elem type = x.dtype == DType::F32 ? Elem::F32 : x.dtype == DType::BF16 ? Elem::BF16 : Elem::F16;
  return {static_cast<std::byte*>(x.data) + static_cast<std::size_t>(first_row * x.row_stride) * dtype_size(x.dtype),
          x.row_stride, type};
}

/// A rank-1 view as one row.
inline TensorView matrix(TensorView x) {
  x.shape = Shape{x.rows(), x.cols()};
  return x;
}

/// parallel_for over rows, in pieces worth a thread's while.
inline void for_rows(Index rows, Index cols, const std::function<void(Index, Index)>& body) {
  constexpr Index kGrain = 16384;  // elements
  parallel_for(rows, std::max<Index>(1, kGrain / std::max<Index>(cols, 1)), body);
}

inline Arena& workspace(const ExecContext& ctx, const char* op) {
  if (!ctx.workspace) throw LogicError("{}: the context has no workspace memory", op);
  return *ctx.workspace;
}

/// True where scratch is to be claimed, and nothing computed (ops/dry_run.h).
inline bool is_dry(const ExecContext& ctx) { return ctx.workspace && ctx.workspace->dry(); }

}  // namespace temper::ops::cpu
