#include "ops/cpu/attention.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "ops/cpu/rows.h"
#include "ops/cpu/tasks.h"

namespace temper::ops::cpu {
namespace {

/// Spans of so few queries read keys and values as they are, a query at a time.
constexpr Index kFewQueries = 8;

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
  task.softcap = shape.softcap;
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

/// Keys and values of every (span, key head), packed; `parts` arrays of floats, one after another for each key head.
class PackedSpans {
 public:
  /// Spans of at most `few` queries are left out.
  PackedSpans(const ExecContext& ctx, std::span<const AttentionSpan> spans, const AttentionShape& shape, Index parts,
              Index few)
      : spans_(spans), shape_(shape), parts_(parts), few_(few) {
    offsets_.resize(spans.size() + 1);
    for (std::size_t i = 0; i < spans.size(); ++i)
      offsets_[i + 1] = offsets_[i] + (tiled(spans[i]) ? shape.kv_heads * parts * part_size(spans[i]) : 0);
    data_ = ctx.workspace->allocate(DType::F32, Shape{offsets_[spans.size()]}).as<float>();
  }

  bool empty() const { return offsets_[spans_.size()] == 0; }
  bool tiled(const AttentionSpan& span) const { return span.query_end - span.query_begin > few_; }
  float* part(std::size_t span, Index kv_head, Index index) const {
    return data_ + offsets_[span] + (kv_head * parts_ + index) * part_size(spans_[span]);
  }

 private:
  Index part_size(const AttentionSpan& span) const {
    return attention_packed_size(span.key_end - span.key_begin, shape_.head_dim);
  }

  std::span<const AttentionSpan> spans_;
  const AttentionShape& shape_;
  Index parts_, few_;
  std::vector<std::int64_t> offsets_;
  float* data_;
};

}  // namespace

void attention(const ExecContext& ctx, const Kernels& kernels, const TensorView& q, const TensorView& k, const TensorView& v,
               std::span<const AttentionSpan> spans, const AttentionShape& shape, const TensorView& out,
               const TensorView* lse) {
  if (shape.head_dim > kMaxHeadDim)
    throw Unsupported("attention: expected a head_dim of at most {}, found {}", kMaxHeadDim, shape.head_dim);
  const Index d = shape.head_dim, count = static_cast<Index>(spans.size()), group = shape.heads / shape.kv_heads;
  const ArenaScope scope(workspace(ctx, "attention"));
  const PackedSpans packed(ctx, spans, shape, 2, kFewQueries);
  // Tasks: (span, tile of queries) by head. first_task[i]: tiles of the spans before i.
  std::vector<std::int64_t> first_task(spans.size() + 1);
  for (std::size_t s = 0; s < spans.size(); ++s)
    first_task[s + 1] = first_task[s] + (packed.tiled(spans[s]) ? row_tiles(spans[s].query_end - spans[s].query_begin) : 1);
  const Index tasks = first_task.back() * shape.heads, scratch_size = attention_scratch_size(d);
  float* scratch = ctx.workspace->allocate(DType::F32, Shape{std::max(task_workers(tasks), 1), scratch_size}).as<float>();
  if (is_dry(ctx)) return;
  zero_outside_queries(out, spans);
  run_tasks(packed.empty() ? 0 : count * shape.kv_heads, [&](Index i, int) {
    const std::size_t s = static_cast<std::size_t>(i / shape.kv_heads);
    const Index head = i % shape.kv_heads, keys = spans[s].key_end - spans[s].key_begin;
    if (!packed.tiled(spans[s])) return;
    kernels.attention_pack_columns(head_rows(k, spans[s].key_begin, head, d), keys, d, packed.part(s, head, 0));
    kernels.attention_pack_rows(head_rows(v, spans[s].key_begin, head, d), keys, d, packed.part(s, head, 1));
  });
  run_tasks(tasks, [&](Index i, int worker) {
    const Index tile = i / shape.heads, head = i % shape.heads;
    const std::size_t s = static_cast<std::size_t>(std::ranges::upper_bound(first_task, tile) - first_task.begin() - 1);
    const AttentionTask task = head_task(q, k, v, out, lse, spans[s], shape, head);
    if (!packed.tiled(spans[s])) return kernels.attention_rows(task, 0, task.queries);
    const AttentionPacked operands{.k_columns = packed.part(s, head / group, 0), .v_rows = packed.part(s, head / group, 1)};
    // The last tiles see the most keys: they go first, so that threads end together.
    kernels.attention_tile(task, operands, first_task[s + 1] - 1 - tile, scratch + worker * scratch_size);
  });
}

void attention_backward(const ExecContext& ctx, const Kernels& kernels, const TensorView& q, const TensorView& k,
                        const TensorView& v, std::span<const AttentionSpan> spans, const AttentionShape& shape,
                        const AttentionGrads& grads) {
  const Index d = shape.head_dim, keys = k.rows(), group = shape.heads / shape.kv_heads;
  const Index count = static_cast<Index>(spans.size()) * shape.heads;
  Index scratch_size = 0;
  for (const AttentionSpan& span : spans)
    scratch_size = std::max(scratch_size, attention_grad_scratch_size(span.query_end - span.query_begin, d));
  const ArenaScope scope(workspace(ctx, "attention_backward"));
  // Each query head's share of dk and dv, [heads, keys, head_dim]; summed over a group in order afterwards.
  float* dk = ctx.workspace->allocate(DType::F32, Shape{shape.heads, keys, d}).as<float>();
  float* dv = ctx.workspace->allocate(DType::F32, Shape{shape.heads, keys, d}).as<float>();
  float* scratch = ctx.workspace->allocate(DType::F32, Shape{std::max(task_workers(count), 1), scratch_size}).as<float>();
  const PackedSpans packed(ctx, spans, shape, 3, 0);
  if (is_dry(ctx)) return;
  run_tasks(static_cast<Index>(spans.size()) * shape.kv_heads, [&](Index i, int) {
    const std::size_t s = static_cast<std::size_t>(i / shape.kv_heads);
    const Index head = i % shape.kv_heads, rows = spans[s].key_end - spans[s].key_begin;
    if (!packed.tiled(spans[s])) return;
    const Rows head_k = head_rows(k, spans[s].key_begin, head, d), head_v = head_rows(v, spans[s].key_begin, head, d);
    kernels.attention_pack_columns(head_k, rows, d, packed.part(s, head, 0));
    kernels.attention_pack_columns(head_v, rows, d, packed.part(s, head, 1));
    kernels.attention_pack_rows(head_k, rows, d, packed.part(s, head, 2));
  });
  zero_outside_queries(grads.dq, spans);
  zero_outside_keys(grads.dk, spans);
  zero_outside_keys(grads.dv, spans);
  run_tasks(count, [&](Index i, int worker) {
    const std::size_t s = static_cast<std::size_t>(i / shape.heads);
    const AttentionSpan& span = spans[s];
    const Index head = i % shape.heads, kv_head = head / group;
    AttentionGradTask task;
    if (packed.tiled(span))
      task.packed = {.k_columns = packed.part(s, kv_head, 0),
                     .k_rows = packed.part(s, kv_head, 2),
                     .v_columns = packed.part(s, kv_head, 1)};
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
    const auto reduce = [&](float* share, const TensorView& out) {
      const auto head_share = [&](Index g) {
        return Rows{share + ((kv_head * group + g) * keys + span.key_begin) * d, d, Elem::F32};
      };
      for (Index g = 1; g < group; ++g) kernels.add(head_share(0), head_share(g), head_share(0), rows, d);
      kernels.convert(head_share(0), head_rows(out, span.key_begin, kv_head, d), rows, d);
    };
    reduce(dk, grads.dk);
    reduce(dv, grads.dv);
  });
}

}  // namespace temper::ops::cpu
