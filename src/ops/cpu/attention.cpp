#include "ops/cpu/attention.h"

#include <cstring>

#include "ops/cpu/rows.h"
#include "ops/cpu/tasks.h"

namespace temper::ops::cpu {
namespace {

/// One head's columns of some rows.
Rows head_rows(const TensorView& x, Index first_row, Index head, Index head_dim) {
  Rows rows = rows_of(x, first_row);
  rows.data = static_cast<std::byte*>(rows.data) + static_cast<std::size_t>(head * head_dim) * dtype_size(x.dtype);
  return rows;
}

AttentionTask head_task(const TensorView& q, const TensorView& k, const TensorView& v, const TensorView& out,
                        const TensorView* lse, const AttentionSpan& span, const AttentionShape& shape, Index head) {
  const Index d = shape.head_dim, kv_head = head / (shape.heads / shape.kv_heads);
  AttentionTask task;
  task.q = head_rows(q, span.query_begin, head, d);
  task.k = head_rows(k, span.key_begin, kv_head, d);
  task.v = head_rows(v, span.key_begin, kv_head, d);
  task.out = head_rows(out, span.query_begin, head, d);
  if (lse) task.lse = lse->as<float>() + span.query_begin * lse->row_stride + head, task.lse_stride = lse->row_stride;
  task.queries = span.query_end - span.query_begin;
  task.keys = span.key_end - span.key_begin;
  task.head_dim = d;
  task.window = shape.window;
  task.scale = shape.scale;
  return task;
}

/// Rows that belong to no span get zeros; `begin` and `end` name the span's rows in x.
template <typename Begin, typename End>
void zero_outside(const TensorView& x, std::span<const AttentionSpan> spans, Begin&& begin, End&& end) {
  const auto clear = [&](Index from, Index to) {
    for (Index r = from; r < to; ++r)
      std::memset(rows_of(x, r).data, 0, static_cast<std::size_t>(x.cols()) * dtype_size(x.dtype));
  };
  Index done = 0;
  for (const AttentionSpan& span : spans) {
    clear(done, begin(span));
    done = end(span);
  }
  clear(done, x.rows());
}

void zero_outside_queries(const TensorView& x, std::span<const AttentionSpan> spans) {
  zero_outside(
      x, spans, [](const AttentionSpan& s) { return s.query_begin; }, [](const AttentionSpan& s) { return s.query_end; });
}

void zero_outside_keys(const TensorView& x, std::span<const AttentionSpan> spans) {
  zero_outside(
      x, spans, [](const AttentionSpan& s) { return s.key_begin; }, [](const AttentionSpan& s) { return s.key_end; });
}

}  // namespace

void attention(const ExecContext&, const Kernels& kernels, const TensorView& q, const TensorView& k, const TensorView& v,
               std::span<const AttentionSpan> spans, const AttentionShape& shape, const TensorView& out,
               const TensorView* lse) {
  zero_outside_queries(out, spans);
  run_tasks(static_cast<Index>(spans.size()) * shape.heads, [&](Index i, int) {
    const AttentionSpan& span = spans[static_cast<std::size_t>(i / shape.heads)];
    const AttentionTask task = head_task(q, k, v, out, lse, span, shape, i % shape.heads);
    kernels.attention_rows(task, 0, task.queries);
  });
}

void attention_backward(const ExecContext& ctx, const Kernels& kernels, const TensorView& q, const TensorView& k,
                        const TensorView& v, std::span<const AttentionSpan> spans, const AttentionShape& shape,
                        const AttentionGrads& grads) {
  const Index d = shape.head_dim, keys = k.rows(), group = shape.heads / shape.kv_heads;
  const Index count = static_cast<Index>(spans.size()) * shape.heads;
  Index scratch_size = 0;
  for (const AttentionSpan& span : spans)
    scratch_size = std::max(scratch_size, kernels.attention_grad_scratch(span.query_end - span.query_begin, d));
  const ArenaScope scope(workspace(ctx, "attention_backward"));
  // Each query head's share of dk and dv, [heads, keys, head_dim]; summed over a group in order afterwards.
  float* dk = ctx.workspace->allocate(DType::F32, Shape{shape.heads, keys, d}).as<float>();
  float* dv = ctx.workspace->allocate(DType::F32, Shape{shape.heads, keys, d}).as<float>();
  float* scratch = ctx.workspace->allocate(DType::F32, Shape{std::max(task_workers(count), 1), scratch_size}).as<float>();
  zero_outside_queries(grads.dq, spans);
  zero_outside_keys(grads.dk, spans);
  zero_outside_keys(grads.dv, spans);
  run_tasks(count, [&](Index i, int worker) {
    const AttentionSpan& span = spans[static_cast<std::size_t>(i / shape.heads)];
    const Index head = i % shape.heads;
    AttentionGradTask task;
    task.forward = head_task(q, k, v, grads.out, &grads.lse, span, shape, head);
    task.dout = head_rows(grads.dout, span.query_begin, head, d);
    task.dq = head_rows(grads.dq, span.query_begin, head, d);
    task.dk = dk + (head * keys + span.key_begin) * d;
    task.dv = dv + (head * keys + span.key_begin) * d;
    task.scratch = scratch + worker * scratch_size;
    kernels.attention_backward(task);
  });
  run_tasks(static_cast<Index>(spans.size()) * shape.kv_heads, [&](Index i, int) {
    const AttentionSpan& span = spans[static_cast<std::size_t>(i / shape.kv_heads)];
    const Index kv_head = i % shape.kv_heads, rows = span.key_end - span.key_begin;
    for (const auto& [share, out] : {std::pair{dk, &grads.dk}, std::pair{dv, &grads.dv}}) {
      const auto head_share = [&](Index g) {
        return Rows{share + ((kv_head * group + g) * keys + span.key_begin) * d, d, Elem::F32};
      };
      for (Index g = 1; g < group; ++g) kernels.add(head_share(0), head_share(g), head_share(0), rows, d);
      kernels.convert(head_share(0), head_rows(*out, span.key_begin, kv_head, d), rows, d);
    }
  });
}

}  // namespace temper::ops::cpu
