#include "ops/cpu/low_rank.h"

#include <algorithm>

#include "ops/cpu/rows.h"
#include "ops/cpu/tasks.h"

namespace temper::ops::cpu {
namespace {

/// Rows whose gradients are summed on their own; a function of the number of rows alone, as the order of sums is.
Index chunk_rows(Index rows) {
  constexpr Index kLeast = 256, kMostChunks = 16;
  const Index equal = (rows + kMostChunks - 1) / kMostChunks;
  return std::max(kLeast, (equal + kRowTile - 1) / kRowTile * kRowTile);
}

}  // namespace

void lora_backward(const ExecContext& ctx, const Kernels& kernels, const TensorView& x, const TensorView& dy,
                   const LoraGradients& lora, const TensorView* dyb) {
  const Index rows = x.rows(), in = x.cols(), out = dy.cols(), rank = lora.a.rows(), r = padded(rank);
  const Index chunk = chunk_rows(rows), chunks = (rows + chunk - 1) / chunk;
  const Index size_a = r * padded(in), size_b = r * padded(out), scratch_size = lora_scratch_size(in, out, rank);
  const ArenaScope scope(workspace(ctx, "lora_backward"));
  const auto floats = [&](Index count, Index size) {
    return ctx.workspace->allocate(DType::F32, Shape{count, size}).as<float>();
  };
  float *packed_a = floats(1, size_a), *packed_b = floats(1, r * row_tiles(out) * kRowTile);
  float *sums = floats(chunks, size_a + size_b), *scratch = floats(task_workers(chunks), scratch_size);
  if (is_dry(ctx)) return;
  kernels.lora_pack(rows_of(lora.a), rows_of(lora.b), in, out, rank, packed_a, packed_b);
  run_tasks(chunks, [&](Index i, int worker) {
    float* own = sums + i * (size_a + size_b);
    std::fill_n(own, size_a + size_b, 0.0f);
    const LoraTask task{.x = rows_of(x),
                        .dy = rows_of(dy),
                        .dyb = dyb ? rows_of(*dyb) : Rows{},
                        .in = in,
                        .out = out,
                        .rank = rank,
                        .scale = lora.scale,
                        .a = packed_a,
                        .b = packed_b,
                        .grad_a = own,
                        .grad_b = own + size_a,
                        .scratch = scratch + worker * scratch_size};
    kernels.lora_backward(task, i * chunk, std::min(rows, (i + 1) * chunk));
  });
  // Chunks in order, then onto the gradients; B's lie transposed.
  const Index size = size_a + size_b;
  const auto row = [](float* data) { return Rows{data, 0, Elem::F32}; };
  parallel_for(size, 8192, [&](Index begin, Index end) {
    for (Index i = 1; i < chunks; ++i)
      kernels.add(row(sums + begin), row(sums + i * size + begin), row(sums + begin), 1, end - begin);
  });
  for_rows(rank, in, [&](Index begin, Index end) {
    const Rows grad = rows_of(lora.grad_a, begin);
    kernels.add(grad, {sums + begin * padded(in), padded(in), Elem::F32}, grad, end - begin, in);
  });
  const float* sum_b = sums + size_a;
  for_rows(out, rank, [&](Index begin, Index end) {
    for (Index n = begin; n < end; ++n)
      for (Index j = 0; j < rank; ++j)
        lora.grad_b.as<float>()[n * lora.grad_b.row_stride + j] += lora.scale * sum_b[j * padded(out) + n];
  });
}

}  // namespace temper::ops::cpu
