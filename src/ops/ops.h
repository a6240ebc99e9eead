// The operations: contracts and checks. Each forwards to the context's backend (ops/backend.h) after checking shapes and
// dtypes; a mistake throws LogicError or Unsupported naming the op and every shape and dtype.
//
// T is a dtype of activations and products' operands: F32 or BF16. Every output says `=` or `+=`. Matrices are row-major
// with a row stride. All reductions have a fixed order: results do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <span>

#include "ops/dropout.h"
#include "ops/gate.h"
#include "quant/codec.h"
#include "quant/int_product.h"
#include "tensor/exec_context.h"
#include "tensor/tensor.h"

namespace temper::ops {

// ---- Matrix products -------------------------------------------------------------------------------------------------

struct MatmulOptions {
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;  ///< c += instead of c =; needs an F32 c.
  float alpha = 1.0f;
};

/// c [M, N] (= or +=) alpha · op(a) [M, K] · op(b) [K, N]. a and b share a dtype T; c is T or F32. Accumulates in f32.
void matmul(const ExecContext& ctx, const TensorView& a, const TensorView& b, const TensorView& c,
            MatmulOptions options = {});

/// A matrix [N, K] that activations are multiplied with: dense (F32 or BF16), in a number format's own bytes, or both; then
/// `dense` is operand(decode(encoded)).
struct Weight {
  TensorView dense;
  quant::EncodedView encoded;  ///< codec is null where there are no codes.
  /// Number format to which activations are rounded, row by row, before they are multiplied with this; null: none.
  const quant::Codec* input = nullptr;
  quant::StaticRange input_range = {};  ///< Of `input`, where that is a format whose range is given.
  /// Number format to which the product is rounded, by who asks for it (output_rounding), and its range; null: none.
  const quant::Codec* output = nullptr;
  quant::StaticRange output_range = {};

  Weight() = default;
  Weight(TensorView matrix) : dense(std::move(matrix)) {}
  Weight(const Tensor& matrix) : dense(matrix.view()) {}
  explicit Weight(const quant::EncodedView& codes, TensorView matrix = {}) : dense(std::move(matrix)), encoded(codes) {}
  std::int64_t rows() const { return encoded.codec ? encoded.rows : dense.rows(); }
  std::int64_t cols() const { return encoded.codec ? encoded.cols : dense.cols(); }
};

/// Products with at most so many rows of activations read each weight once, straight from where it lies; they need no dense
/// form of it.
inline constexpr std::int64_t kFewRows = 8;

/// One of several products of the same activations.
struct LinearPart {
  Weight weight;  ///< [N, K]
  TensorView y;   ///< [M, N]; T or F32.
};

/// What the activations of products with `weight` are rounded to before them: its `input`, else the grid that goes with its
/// format where ctx.activations is Bits8, else nothing.
quant::InputFormat input_rounding(const ExecContext& ctx, const Weight& weight);
/// What a product with `weight` is rounded to, by the caller of `linear`.
inline quant::InputFormat output_rounding(const Weight& weight) {
  return {quant::ActivationGrid::None, weight.output, weight.output_range};
}
/// True if products with `weight` multiply its codes as integers with 8-bit activations: no dense form of it is needed then,
/// however many rows x has.
bool multiplies_integers(const ExecContext& ctx, const Weight& weight);

/// y (= or, with `accumulate`, +=, F32) rounded(x) [M, K] · weightᵀ for every part, x rounded as input_rounding says of that
/// part's weight (in a copy; once for all parts that agree). x T; a dense weight has the same T. Without `dense`, M is at
/// most kFewRows, unless multiplies_integers.
void linear(const ExecContext& ctx, const TensorView& x, std::span<const LinearPart> parts, bool accumulate = false);
void linear(const ExecContext& ctx, const TensorView& x, const Weight& weight, const TensorView& y, bool accumulate = false);

/// out = x (T, of one shape; may be the same memory) rounded so. `linear` does it on its own; this is for ops that take a
/// dense weight, and for gradients of weights, which are products with x as the forward product saw it.
void round_activations(const ExecContext& ctx, const TensorView& x, const quant::InputFormat& rounding,
                       const TensorView& out);

/// The backward pass of rounding x (T) to a format that quant::clips: grad (T or F32, of x's shape), in place, = 0 where x
/// was clipped. Returns the gradients of the range: rows' terms in double, in an order that does not depend on threads.
quant::RangeGradient clip_backward(const ExecContext& ctx, const TensorView& x, const quant::InputFormat& rounding,
                                   const TensorView& grad);

// ---- Element-wise and gather ------------------------------------------------------------------------------------------

/// out = in, converting between F32, BF16 and F16 sources; shapes equal, strides free.
void convert(const ExecContext& ctx, const TensorView& in, const TensorView& out);
/// out [T, H] F32 = a F32 + b (T).
void add(const ExecContext& ctx, const TensorView& a, const TensorView& b, const TensorView& out);
/// x [M, N] F32 += row [N] F32, to every row.
void add_row(const ExecContext& ctx, const TensorView& x, const TensorView& row);
/// sums [N] F32 += the columns' sums of x [M, N] (T), in an order that depends only on M.
void add_column_sums(const ExecContext& ctx, const TensorView& x, const TensorView& sums);
/// out [M, N] = x ∘ row [N] F32, in every row; x and out T or F32. out may be x.
void scale_columns(const ExecContext& ctx, const TensorView& x, const TensorView& row, const TensorView& out);
/// x *= factor, F32.
void scale(const ExecContext& ctx, const TensorView& x, float factor);
/// out = x / (1 − p) where kept, otherwise 0; both of one dtype (T). out may be x.
void dropout(const ExecContext& ctx, const TensorView& x, const Dropout& draws, const TensorView& out);
/// x = 0.
void zero(const ExecContext& ctx, const TensorView& x);
/// out[i, :] = in[rows[i], :]; same dtype. Row indices are checked.
void gather_rows(const ExecContext& ctx, const TensorView& in, std::span<const std::int32_t> rows, const TensorView& out);
/// out[rows[i], :] = in[i, :]; rows distinct; other rows untouched.
void scatter_rows(const ExecContext& ctx, const TensorView& in, std::span<const std::int32_t> rows, const TensorView& out);
/// out [T, H] F32 = table[tokens[t], :] (dense F32, BF16 or F16; else rows of codes, as the product's operand would be:
/// rounded to bf16 where ctx.compute is BF16). Token ids are checked against the table.
void embedding(const ExecContext& ctx, const Weight& table, std::span<const std::int32_t> tokens, const TensorView& out);
/// dtable [V, H] F32 += rows of dout F32, tokens ascending in t.
void embedding_backward(const ExecContext& ctx, const TensorView& dout, std::span<const std::int32_t> tokens,
                        const TensorView& dtable);

// ---- Norm, rotary embedding, activation -------------------------------------------------------------------------------

/// RMSNorm (Zhang & Sennrich 2019): y (T) = x · rstd · weight; rstd [rows] F32 = 1/sqrt(mean(x²) + eps). x, weight F32.
void rmsnorm(const ExecContext& ctx, const TensorView& x, const TensorView& weight, float eps, const TensorView& y,
             const TensorView& rstd);
/// dx F32 += gradient through the norm of dy (F32); dweight F32 += if given.
void rmsnorm_backward(const ExecContext& ctx, const TensorView& dy, const TensorView& x, const TensorView& weight,
                      const TensorView& rstd, const TensorView& dx, const TensorView* dweight);

/// Rotary embedding in place on x [T, heads · head_dim] (T): with cos, sin [max_positions, n] F32, n at most head_dim/2,
/// pairs (i, i + n) of the first 2n values of each head turn by the angle whose cosine and sine are row positions[t]; the
/// rest stay. A factor in cos and sin scales what is turned. `inverse` is the backward pass.
void rope(const ExecContext& ctx, const TensorView& x, std::int64_t head_dim, std::span<const std::int32_t> positions,
          const TensorView& cos, const TensorView& sin, bool inverse);

/// out (T) = gate function(gate) · up.
void glu(const ExecContext& ctx, Gate kind, const TensorView& gate, const TensorView& up, const TensorView& out);
/// dgate, dup (T) = gradients of glu; dgate/dup may alias gate/up.
void glu_backward(const ExecContext& ctx, Gate kind, const TensorView& gate, const TensorView& up, const TensorView& dout,
                  const TensorView& dgate, const TensorView& dup);

// ---- Attention ---------------------------------------------------------------------------------------------------------

/// One document: query rows [query_begin, query_end) attend to key rows [key_begin, key_end), aligned at the end: the last
/// query sees the last key, the one before it one key fewer. In training both ranges are the same; with a KV cache there are
/// more keys.
struct AttentionSpan {
  std::int32_t query_begin, query_end, key_begin, key_end;
};

struct AttentionShape {
  std::int64_t heads, kv_heads, head_dim;
  float scale;              ///< Multiplies q·k; above 0, usually 1/sqrt(head_dim).
  std::int64_t window = 0;  ///< > 0: a query sees at most this many keys, its own included.
  float softcap = 0.0f;     ///< > 0: a scaled score s becomes softcap · tanh(s / softcap) (Gemma 2).
};

/// Causal attention without a T×T matrix (Dao et al. 2022). q, out [Tq, heads·head_dim]; k, v [Tk, kv_heads·head_dim], all
/// T; lse [Tq, heads] F32 = log of the softmax's denominator, for the backward pass (may be null in evaluation). Query heads
/// h·g … h·g+g−1 share kv head h.
void attention(const ExecContext& ctx, const TensorView& q, const TensorView& k, const TensorView& v,
               std::span<const AttentionSpan> spans, const AttentionShape& shape, const TensorView& out,
               const TensorView* lse);
/// dq, dk, dv (T) = gradients; out, lse from the forward pass; dout (T).
void attention_backward(const ExecContext& ctx, const TensorView& q, const TensorView& k, const TensorView& v,
                        std::span<const AttentionSpan> spans, const AttentionShape& shape, const TensorView& out,
                        const TensorView& lse, const TensorView& dout, const TensorView& dq, const TensorView& dk,
                        const TensorView& dv);

// ---- Loss ---------------------------------------------------------------------------------------------------------------

/// Cross-entropy of rows of logits [n, V] F32 against targets [n] (all ≥ 0): nll[i] = logsumexp(row) − row[target]. If
/// dlogits (T, [n, V]) is given, it = (softmax − onehot) · grad_scale. One pass for the maximum and sum, one for the
/// gradient.
void cross_entropy(const ExecContext& ctx, const TensorView& logits, std::span<const std::int32_t> targets, float grad_scale,
                   std::span<float> nll, const TensorView* dlogits);

/// x (F32), in place, = cap · tanh(x / cap).
void softcap(const ExecContext& ctx, const TensorView& x, float cap);
/// grad (T), in place, = the gradient of x, given that of y = softcap(x): times 1 − (y / cap)². y F32.
void softcap_backward(const ExecContext& ctx, const TensorView& y, float cap, const TensorView& grad);

struct HeadGradients {
  TensorView dhidden;                     ///< [n, H] F32, = .
  const TensorView* dhead;                ///< [V, H] F32, +=, or null.
  quant::RangeGradient* range = nullptr;  ///< Of the input's static range, +=, or null.
  /// [n]: multiplies each row's share of the gradient, beside grad_scale; empty: 1.
  std::span<const float> row_scale = {};
};

/// Head and cross-entropy fused in chunks of rows, so that no n × V matrix exists: logits = hidden (T) [n, H], rounded as
/// input_rounding says, · headᵀ [V, H], through softcap where `cap` > 0. nll [n] =. With `gradients`, those of Σ nll ·
/// grad_scale. A head that is only codes is enough where multiplies_integers and no gradients are wanted.
void linear_cross_entropy(const ExecContext& ctx, const TensorView& hidden, const Weight& head,
                          std::span<const std::int32_t> targets, float grad_scale, std::span<float> nll,
                          const HeadGradients* gradients, float cap = 0.0f);

/// What a student's rows are drawn to: a teacher's logits, made in the same chunks from the input of its head, or
/// `log_probs`, the likeliest k ids of each row and, as one outcome, all others.
struct TeacherRows {
  TensorView hidden;                  ///< T [n, H'].
  Weight head;                        ///< [V, H'], dense.
  float cap = 0.0f;                   ///< As `cap` of the student.
  std::int64_t top_k = 0;             ///< Above 0: what follows stands in place of the above.
  std::span<const std::int32_t> ids;  ///< [n · k], distinct within a row.
  std::span<const float> log_probs;   ///< [n · k], of the teacher at the temperature of DistillationMix.
  std::span<const float> log_rest;    ///< [n], of the sum over all other ids; -inf where nothing is left.
};

/// Largest TeacherRows::top_k.
inline constexpr std::int64_t kMaxTopK = 1024;

/// The loss of a row: cross_entropy · NLL + divergence · τ² · KL(teacher ‖ student), both softmaxes of KL at logits / τ
/// (Hinton et al. 2015).
struct DistillationMix {
  float cross_entropy = 0.0f, divergence = 1.0f, temperature = 1.0f;
};

/// linear_cross_entropy with that loss: nll [n] =, kl [n] = KL at temperature τ, without its factors. With top_k the
/// divergence is that of k + 1 outcomes, the last being "any other id": never above the full one, and with gradients that
/// leave the student's own proportions among the others as they are. With divergence 0, what linear_cross_entropy computes,
/// bit for bit; `teacher` is not read and kl is 0. `gradients->row_scale` is not supported.
void linear_distillation(const ExecContext& ctx, const TensorView& hidden, const Weight& head,
                         std::span<const std::int32_t> targets, const TeacherRows& teacher, const DistillationMix& mix,
                         float grad_scale, std::span<float> nll, std::span<float> kl, const HeadGradients* gradients,
                         float cap = 0.0f);

// ---- Weights ------------------------------------------------------------------------------------------------------------

/// A LoRA pair on a linear of shape [N, K]: a [r, K], b [N, r], both F32 masters; scale = alpha/r (or alpha/sqrt(r)). gain
/// F32 [N, 1], or null for 1: what each row of the sum is multiplied with (DoRA).
struct LoraView {
  TensorView a, b;
  float scale = 0.0f;
  TensorView gain = {};
};

/// out [N, K] (BF16, F32 or F16: the dtype in which the merged checkpoint is stored) = round(gain · (base + scale · Σ_r
/// b[n,r]·a[r,k])), in f32, rank ascending, products and sums rounded separately: the same bits on every machine. base
/// is F32, BF16 or F16.
void merge_lora(const ExecContext& ctx, const TensorView& base, const LoraView& lora, const TensorView& out);

/// Where a matrix's parameters come from: fit to the values at hand, or those that its encoding holds.
enum class Parameters { Fit, Kept };

/// encoded = codec.encode(merged), merged as merge_lora would write it in `storage`, tile by tile; `lora` null: base itself.
/// With Parameters::Kept, codec.reround(merged): only codes are made anew. `factors` (F32 [rows, groups], not with Kept):
/// learnt factors of scales (quant/learnt_scales.h); empty: none.
/// If `stats` is given, `encoded` must hold the earlier encoding (or be zero), against which changes are counted, and *stats
/// +=. Non-finite merged values throw Diverged.
void merge_and_encode(const ExecContext& ctx, const TensorView& base, const LoraView* lora, DType storage,
                      const quant::Codec& codec, std::span<std::byte> encoded, quant::CodeStats* stats,
                      Parameters parameters = Parameters::Fit, std::span<const float> factors = {});

/// Matrix whose scales are learnt: rows of what merge_and_encode was given, and what it made of them.
struct LearntScales {
  TensorView base;                 ///< [n, K]
  const LoraView* lora = nullptr;  ///< a [r, K], b [n, r]; null: base itself.
  DType storage = DType::BF16;
  quant::EncodedView encoded;      ///< Of the n rows.
  std::span<const float> factors;  ///< [n, groups]
};
/// grads [n, groups] += the gradients of the factors, given dw F32 [n, K] (quant::factor_gradients).
void factor_gradients(const ExecContext& ctx, const LearntScales& scales, const TensorView& dw, std::span<float> grads);

/// out[n] = Σ_k a[n, k] · b[n, k] of F32 matrices, in double and an order that depends only on K.
void row_dots(const ExecContext& ctx, const TensorView& a, const TensorView& b, std::span<double> out);

/// out [rows, cols] (T) = decode(encoded).
void decode(const ExecContext& ctx, const quant::EncodedView& encoded, const TensorView& out);

/// A LoRA pair's operands a [r, K], b [N, r] (T) and gradients grad_a [r, K], grad_b [N, r] (F32).
struct LoraGradients {
  TensorView a, b, grad_a, grad_b;
  float scale = 0.0f;
};

/// Gradients of a pair whose linear saw x [M, K] and got dy [M, N] (T): grad_a += (scale · dy · b)ᵀ · x,
/// grad_b += scale · dyᵀ · (x · aᵀ). If given, dyb [M, r] (T) = scale · dy · b. The narrow products are rounded to T.
void lora_backward(const ExecContext& ctx, const TensorView& x, const TensorView& dy, const LoraGradients& lora,
                   const TensorView* dyb = nullptr);

// ---- Optimizer ----------------------------------------------------------------------------------------------------------

/// What an optimizer keeps for each of n parameters. `values`: F32 [n]; BF16 [n], rounded stochastically; or U8 [n], codes
/// of a dynamic map (quant/dynamic_map.h) for `absmax` F32, one for each block of kStateBlock parameters.
struct OptimizerState {
  TensorView values, absmax;
  OptimizerState(TensorView all, TensorView largest = {}) : values(std::move(all)), absmax(std::move(largest)) {}
  OptimizerState(const Tensor& all) : values(all.view()) {}
};
inline constexpr std::int64_t kStateBlock = 256;

/// Draws of stochastic rounding (base/rng.h), a function of counters alone. In step t, for state s (0 or 1), parameter i
/// takes half k % 2 (0: the lower) of word k / 2 of philox(seed, 2 t + s, first + i / 128 · 16 + i % 16), with k = i % 128 /
/// 16; a value's lower 16 bits plus these 16 decide which neighbour in bf16 it becomes.
struct StateDraws {
  std::uint64_t seed = 0, first = 0;
};

/// AdamW (Loshchilov & Hutter 2019), decoupled weight decay, bias-corrected; `step` counts from 1.
struct AdamW {
  float lr, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, weight_decay = 0.0f;
  std::int64_t step = 1;
  float grad_scale = 1.0f;  ///< Multiplies the gradient first (clipping).
  StateDraws draws = {};
};

/// param F32, m and v updated in place from grad F32; all of one size, contiguous. Parameters move by the new states as they
/// are before they are rounded. Codes of m are those of the signed map, of v of the unsigned one.
void adamw(const ExecContext& ctx, const TensorView& param, const TensorView& grad, const OptimizerState& m,
           const OptimizerState& v, const AdamW& options);

/// Lion (Chen et al. 2023, algorithm 2), decoupled weight decay; one state.
struct Lion {
  float lr, beta1 = 0.9f, beta2 = 0.99f, weight_decay = 0.0f;
  std::int64_t step = 1;    ///< For the draws.
  float grad_scale = 1.0f;  ///< Multiplies the gradient first (clipping).
  StateDraws draws = {};
};

/// param F32 -= lr · (sign(beta1 · m + (1 - beta1) · grad) + weight_decay · param), then m = beta2 · m + (1 - beta2) · grad;
/// the sign of 0 is 0. Codes of m are those of the signed map.
void lion(const ExecContext& ctx, const TensorView& param, const TensorView& grad, const OptimizerState& m,
          const Lion& options);

/// Σ x², F32 in, double out, in an order that depends only on the size.
double sum_of_squares(const ExecContext& ctx, const TensorView& x);

}  // namespace temper::ops
