// Attention on the CPU: spans and heads as tasks for the kernels.
//
// Workspace of the forward pass: keys · kv_heads · head_dim · 8 bytes, none for short queries. Of the backward pass:
// keys · heads · head_dim · 8 bytes, and per thread what attention_grad_scratch says for the longest span.
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
