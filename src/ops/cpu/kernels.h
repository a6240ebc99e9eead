// The table of our own kernels, one instance per instruction set. The same sources are compiled once per level (room.cmake);
// they see plain pointers only, so that no inline function of a library is compiled for an instruction set that this CPU may
// lack.
//
// Kernels are serial over the range they are given; the backend cuts ranges among threads. Reductions run over 16 lanes in a
// fixed order on every instruction set, so a row's result does not depend on how rows are cut.
#pragma once

#include <cstdint>

#include "ops/dropout.h"
#include "ops/gate.h"

namespace temper::ops::cpu {

using Index = std::int64_t;

enum class Elem { F32, BF16, F16 };

/// A matrix of rows: `stride` elements apart.
struct Rows {
  void* data = nullptr;
  Index stride = 0;
  Elem type = Elem::F32;
};

struct AdamWFactors {
  float lr, beta1, beta2, eps, decay;  ///< decay = 1 - lr · weight_decay
  float correction1, correction2;      ///< 1/(1 - beta1^step), 1/(1 - beta2^step)
  float grad_scale;
};

struct LionFactors {
  float lr, beta1, beta2, decay;  ///< decay = 1 - lr · weight_decay
  float grad_scale;
};

/// One span of attention seen from one (query head, key head): pointers to the first query and key row of the head.
struct AttentionTask {
  Rows q, k, v, out;
  float* lse = nullptr;  ///< Of the first query, or null; lse_stride floats to the next query's.
  Index lse_stride = 0;
  Index queries = 0, keys = 0, head_dim = 0, window = 0;
  float scale = 1.0f, softcap = 0.0f;
};

/// Products of our own are cut into tiles of so many rows, with columns padded to whole vectors.
inline constexpr Index kRowTile = 64;
static constexpr Index padded(Index cols) { return (cols + 15) / 16 * 16; }
static constexpr Index row_tiles(Index rows) { return (rows + kRowTile - 1) / kRowTile; }

/// Attention works on tiles of 64 queries by 64 keys.
inline constexpr Index kMaxHeadDim = 512;  ///< attention_rows keeps a query on the stack.
/// Floats that one operand packed for `rows` rows may take, in either form below.
static constexpr Index attention_packed_size(Index rows, Index head_dim) {
  return row_tiles(rows) * kRowTile * padded(head_dim);
}
static constexpr Index attention_scratch_size(Index head_dim) { return kRowTile * (2 * padded(head_dim) + kRowTile); }
static constexpr Index attention_grad_scratch_size(Index queries, Index head_dim) {
  return 3 * attention_packed_size(queries, head_dim) + 2 * row_tiles(queries) * kRowTile +
         kRowTile * (3 * kRowTile + 2 * padded(head_dim));
}

/// Keys and values of one (span, key head) as right operands, tile by tile and zero beyond the last: "rows" tiles are
/// [64, padded_dim], "columns" tiles are transposed, [padded_dim, 64]. They are f32 or pairs of bf16 along the first of
/// these, as suits the instruction set.
struct AttentionPacked {
  const float *k_columns = nullptr, *k_rows = nullptr, *v_columns = nullptr, *v_rows = nullptr;
};

/// The backward pass of one (span, query head). dk, dv are f32, this query head's share, rows head_dim apart, and are
/// written (=).
struct AttentionGradTask {
  AttentionTask forward;
  AttentionPacked packed;  ///< k_columns, k_rows, v_columns.
  Rows dout, dq;
  float *dk = nullptr, *dv = nullptr;
  float* scratch = nullptr;  ///< attention_grad_scratch_size(queries, head_dim) floats.
};

/// Rows of one LoRA pair's backward pass; see lora_backward in low_rank.cpp. R is the rank up to a multiple of 16.
struct LoraTask {
  Rows x, dy;  ///< [rows, in], [rows, out]
  Rows dyb;    ///< [rows, rank], = ; or null data
  Index in = 0, out = 0, rank = 0;
  float scale = 1.0f;
  const float *a = nullptr, *b = nullptr;      ///< Packed by lora_pack.
  float *grad_a = nullptr, *grad_b = nullptr;  ///< f32 [R, in up to 16s], [R, out up to 16s], += .
  float* scratch = nullptr;                    ///< lora_scratch_size floats.
};
static constexpr Index lora_scratch_size(Index in, Index out, Index rank) {
  return kRowTile * (2 * padded(in > out ? in : out) + 2 * padded(rank));
}

/// The loss of DistillationMix, times grad_scale in gradients.
struct DistillFactors {
  float cross_entropy, divergence, temperature, grad_scale;
};

/// Of each row, k ids, their logarithms of probabilities, and that of all others' sum.
struct TopRows {
  const std::int32_t* ids = nullptr;
  const float *log_probs = nullptr, *log_rest = nullptr;
  Index k = 0;  ///< At most kMaxTop.
};
inline constexpr Index kMaxTop = 1024;

struct Kernels {
  void (*convert)(Rows in, Rows out, Index rows, Index cols);
  /// out = alpha · in, or out += alpha · in (F32 out).
  void (*scaled_copy)(const float* in, Index in_stride, Rows out, Index rows, Index cols, float alpha, bool accumulate);
  void (*add)(Rows a, Rows b, Rows out, Index rows, Index cols);
  void (*scale)(float* x, Index n, float factor);
  void (*scale_columns)(Rows x, const float* row, Rows out, Index rows, Index cols);
  void (*dropout)(Rows x, Rows out, Index rows, Index cols, const Dropout& d);  ///< Both of one type.

  void (*rmsnorm)(Rows x, const float* weight, float eps, Rows y, float* rstd, Index rows, Index cols);
  void (*rmsnorm_backward)(Rows dy, Rows x, const float* weight, const float* rstd, Rows dx, Index rows, Index cols);
  /// dweight [cols] += Σ over rows of dy · x · rstd.
  void (*rmsnorm_dweight)(Rows dy, Rows x, const float* rstd, float* dweight, Index rows, Index cols);
  /// Pairs (i, i + half) of each head, i < half.
  void (*rope)(Rows x, Index heads, Index head_dim, Index half, const std::int32_t* positions, Rows cos, Rows sin,
               bool inverse, Index rows);
  void (*glu)(Gate kind, Rows gate, Rows up, Rows out, Index rows, Index cols);
  void (*glu_backward)(Gate kind, Rows gate, Rows up, Rows dout, Rows dgate, Rows dup, Index rows, Index cols);
  void (*softcap)(float* x, Index n, float factor, float cap);  ///< x = cap · tanh(factor · x / cap)
  void (*softcap_backward)(Rows y, float cap, Rows grad, Index rows, Index cols);

  /// Queries one at a time, straight from the rows of k and v: for few queries.
  void (*attention_rows)(const AttentionTask& task, Index query_begin, Index query_end);
  void (*attention_pack_rows)(Rows x, Index rows, Index head_dim, float* out);
  void (*attention_pack_columns)(Rows x, Index rows, Index head_dim, float* out);
  /// One tile of queries against all its keys (k_columns, v_rows), with attention_scratch_size floats of scratch.
  void (*attention_tile)(const AttentionTask& task, const AttentionPacked& packed, Index query_tile, float* scratch);
  void (*attention_backward)(const AttentionGradTask& task);

  /// A [rank, in] and B [out, rank] as right operands, in·R and out·R floats, their other extent up to a multiple of 64.
  void (*lora_pack)(Rows a, Rows b, Index in, Index out, Index rank, float* packed_a, float* packed_b);
  /// grad_a += (scale · dy · B)ᵀ · x and grad_b += (x · Aᵀ)ᵀ · dy over rows [begin, end).
  void (*lora_backward)(const LoraTask& task, Index begin, Index end);

  /// nll of rows of f32 logits; with dlogits.data, = (softmax - onehot) · grad_scale. A row of dlogits may begin where its
  /// logits do, whatever its type.
  void (*cross_entropy)(Rows logits, const std::int32_t* targets, float grad_scale, float* nll, Rows dlogits, Index rows,
                        Index cols);
  /// nll and kl of rows of f32 logits beside a teacher's; with dlogits.data, = the gradient. dlogits may lie over the
  /// logits as above.
  void (*distill)(Rows logits, Rows teacher, const std::int32_t* targets, const DistillFactors& f, float* nll, float* kl,
                  Rows dlogits, Index rows, Index cols);
  void (*distill_top)(Rows logits, const TopRows& teacher, const std::int32_t* targets, const DistillFactors& f, float* nll,
                      float* kl, Rows dlogits, Index rows, Index cols);

  /// out = round(gain[n] · (base + scale · Σ_r b[n, r] · a[r, :])), rank ascending, no contraction; gain null: 1.
  void (*merge_lora)(Rows base, const float* a, Index a_stride, const float* b, Index b_stride, Index rank, float scale,
                     const float* gain, Rows out, Index rows, Index cols);
  bool (*all_finite)(Rows x, Index rows, Index cols);

  void (*adamw)(float* param, const float* grad, float* m, float* v, Index n, const AdamWFactors& f);
  void (*lion)(float* param, const float* grad, float* m, Index n, const LionFactors& f);
  /// out (bf16) = in, rounded stochastically with draws of philox(seed, stream, first + …) as StateDraws says.
  void (*stochastic_bf16)(const float* in, std::uint16_t* out, Index n, std::uint64_t seed, std::uint64_t stream,
                          std::uint64_t first);
  double (*dot)(const float* x, const float* y, Index n);

  /// c [m, n] (= or +=) alpha · a [m, k] · bᵀ, b [n, k]: few rows of a, as in generation. Columns [begin, end) of c.
  void (*few_rows_product)(Rows a, Rows b, Rows c, Index m, Index k, float alpha, bool accumulate, Index begin, Index end);
};

/// The table for each level; a level that was not compiled (another architecture) is the generic one.
const Kernels& generic_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512bf16_kernels();

}  // namespace temper::ops::cpu
