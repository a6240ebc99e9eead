// Attention on the CPU: spans and heads as tasks for the kernels.
//
// Workspace, in floats, with head_dim and rows rounded up to whole tiles: forward keys · kv_heads · head_dim · 2 (none for
// spans of few queries); backward keys · head_dim · (heads · 2 + kv_heads · 3), and per thread three times the longest
// span's queries · head_dim.
#pragma once

#include "ops/cpu/kernels.h"
#include "ops/ops.h"

namespace temper::ops::cpu {

struct AttentionGrads {
  const TensorView &out, &lse, &dout, &dq, &dk, &dv;
};

void attention(const ExecContext& ctx, const Kernels& kernels, const TensorView& q, const TensorView& k, const TensorView& v,
               std::span<const AttentionSpan> spans, const AttentionShape& shape, const TensorView& out,
               const TensorView* lse);
void attention_backward(const ExecContext& ctx, const Kernels& kernels, const TensorView& q, const TensorView& k,
                        const TensorView& v, std::span<const AttentionSpan> spans, const AttentionShape& shape,
                        const AttentionGrads& grads);

}  // namespace temper::ops::cpu
