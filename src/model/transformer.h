// The network: blocks as flat mirrored sequences of named operations (block.cpp), and what is done with them: training
// steps, scoring, generation.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "model/adapters.h"
#include "model/arch.h"
#include "model/backward_taps.h"
#include "model/taps.h"
#include "model/weights.h"
#include "ops/ops.h"

namespace temper {
class ScratchFile;
}

namespace temper::model {

class KeptActivations;
struct BlockActivations;

/// A flat stream of tokens: several documents after one another, no padding. Spans are documents (query and key ranges
/// equal); positions restart at each. targets[t] is the token that row t should predict (already shifted), or -1.
struct BatchView {
  std::span<const std::int32_t> tokens, positions, targets;
  std::span<const ops::AttentionSpan> spans;
};

/// What the backward pass finds stored; gradients are the same to the bit. None: all activations. Selective: those that cost
/// a product or an attention; norms and the MLP's activation are computed again. Block: each block's input. Offload: the
/// same, in a file (base/scratch_file.h).
enum class Recompute { None, Selective, Block, Offload };

/// Keys and values of a sequence so far, for generation: per layer [capacity, kv_size] in the compute dtype.
struct KvCache {
  KvCache(const ArchSpec& arch, DType compute, std::int64_t capacity);
  std::vector<Tensor> k, v;
  std::int64_t length = 0, capacity = 0;
};

/// F32 gradients of base tensors, by table index; null views are not wanted. For full training and for tests.
using BaseGradients = std::vector<TensorView>;

/// The top of the network as a loss sees it: the labelled rows of a batch, through the final norm.
struct HeadCall {
  TensorView hidden;                        ///< T [n, H], the input of the head.
  ops::Weight head;                         ///< [vocab, H], dense.
  float cap = 0.0f;                         ///< Of the logits; 0: none.
  std::vector<std::int32_t> rows, targets;  ///< [n]: indices in the batch, and what each is to predict.
  ops::HeadGradients gradients;             ///< For the loss to fill: dhidden =, dhead += where it is given.
};
/// Computes the loss of a micro-batch and its gradients.
using HeadLoss = std::function<void(const ExecContext& ctx, const HeadCall& call)>;

class Transformer {
 public:
  /// `adapters` (may be null) are applied unmerged in the forward pass when `merged` is false; when `merged` is true the
  /// source's weights already contain them and only their gradients are formed (straight-through): dB = s·dYᵀ(X·Aᵀ), dA =
  /// s·(dY·B)ᵀX, dX = dY·Wq.
  Transformer(const ArchSpec& arch, WeightSource& weights, Adapters* adapters = nullptr, bool merged = false);
  ~Transformer();

  /// The optimizer step whose micro-batches come next, for adapters' dropout: what is dropped is a function of the adapters'
  /// seed, the step, the module and the token's number in the step.
  void begin_step(std::int64_t step) { step_ = step, step_tokens_ = 0; }
  void set_recompute(Recompute recompute) { recompute_ = recompute; }
  /// Who sees the linears' inputs from now on; null: nobody.
  void set_taps(Taps* taps) { taps_ = taps; }
  /// Who takes gradients of weights and ranges from forward_backward from now on; null: nobody.
  void set_backward_taps(BackwardTaps* taps) { backward_taps_ = taps; }

  /// One micro-batch of training: returns Σ nll over labelled rows, and adds gradients of grad_scale · Σ nll to the
  /// adapters' (and to base's where wanted). Working memory comes from ctx.workspace. Throws Diverged, naming where, if the
  /// loss is not finite.
  double forward_backward(const ExecContext& ctx, const BatchView& batch, float grad_scale,
                          const BaseGradients* base = nullptr);
  /// The same with any loss of the head's input. Does nothing where no row is labelled.
  void forward_backward(const ExecContext& ctx, const BatchView& batch, const HeadLoss& loss,
                        const BaseGradients* base = nullptr);

  /// The input of the head for the chosen rows: hidden (compute dtype) [rows, H] = .
  void head_input(const ExecContext& ctx, const BatchView& batch, std::span<const std::int32_t> rows,
                  const TensorView& hidden);
  /// The head, dense; valid until the next call, or the next pass.
  ops::Weight head(const ExecContext& ctx) { return weights_.head(ctx, WeightForm::Dense); }
  /// Rows of a batch that have a target.
  static std::vector<std::int32_t> labelled_rows(const BatchView& batch);

  /// NLL of every labelled row (target ≥ 0), in row order.
  std::vector<float> nll(const ExecContext& ctx, const BatchView& batch);

  /// Calls `visit(first, logits)` for chunks of the chosen rows, in order: logits [n, vocab] F32 of rows[first, first + n),
  /// valid during the call and writable.
  void logits(const ExecContext& ctx, const BatchView& batch, std::span<const std::int32_t> rows,
              const std::function<void(std::size_t first, const TensorView& logits)>& visit);

  /// The same from a block's input on: x F32 [N, H] is the residual stream that enters block `layer` (that leaves the last
  /// one where it is num_layers), and is overwritten.
  void logits_from(const ExecContext& ctx, const BatchView& batch, int layer, const TensorView& x,
                   std::span<const std::int32_t> rows,
                   const std::function<void(std::size_t first, const TensorView& logits)>& visit);

  /// Appends tokens to a cached sequence and returns logits [vocab] of the last one (in `out`, F32). Throws Unsupported when
  /// the cache is full.
  void step(const ExecContext& ctx, KvCache& cache, std::span<const std::int32_t> tokens, std::span<float> out);

  /// The next token of n sequences that share a cache: sequence s has rows [s · c, (s + 1) · c) of it, c = capacity / n, of
  /// which `position` are filled, the same for all. Calls `visit` as `logits` does, with a row for each sequence. Throws
  /// Unsupported when the cache is full.
  void step_side_by_side(const ExecContext& ctx, KvCache& cache, std::int64_t position, std::span<const std::int32_t> tokens,
                         const std::function<void(std::size_t first, const TensorView& logits)>& visit);

  // The forward pass by hand, for going through many batches block by block: embed, every block, then `top`.
  /// x F32 [N, H] = the residual stream that enters the first block.
  void embed(const ExecContext& ctx, const BatchView& batch, const TensorView& x);
  /// Runs one block on one batch: x F32 [N, H] in place.
  using BlockRun = std::function<void(const BatchView& batch, const TensorView& x)>;
  /// Acquires a block's weights once and lets `visit` run any number of batches through it. The operations are those of any
  /// other pass of more than ops::kFewRows tokens, bit for bit.
  void with_block(const ExecContext& ctx, int layer, const std::function<void(const BlockRun& run)>& visit);
  /// Shows the head's input for every row of x (what left the last block) to the taps.
  void top(const ExecContext& ctx, const TensorView& x);

  const ArchSpec& arch() const { return arch_; }
  const WeightSource& weights() const { return weights_; }

 private:
  const ArchSpec& arch_;
  WeightSource& weights_;
  Adapters* adapters_;
  bool merged_;
  std::int64_t step_ = 0, step_tokens_ = 0;
  Recompute recompute_ = Recompute::None;
  Taps* taps_ = nullptr;
  BackwardTaps* backward_taps_ = nullptr;
  RopeTable global_rope_, local_rope_;
  std::int64_t rope_length_ = 0;  // sequences that the tables were made for
  TensorTable table_;
  std::unique_ptr<ScratchFile> offloaded_;  // of Recompute::Offload

  class Pass;
  void forward_blocks(Pass& pass, KeptActivations& kept);
  void backward_blocks(Pass& pass, KeptActivations& kept, const TensorView& dx, const BaseGradients* base);
  void loss_backward(const ExecContext& ctx, const BatchView& batch, const HeadLoss& loss, const BaseGradients* base,
                     const TensorView& x);
  void tap_head(const ExecContext& ctx, const TensorView& x) const;
  /// Puts a cache's memory into a block's buffers.
  using UseCache = std::function<void(int layer, BlockActivations& a)>;
  TensorView run_blocks(const ExecContext& ctx, const BatchView& batch, const UseCache& use_cache = {});
  void run_blocks(const ExecContext& ctx, const BatchView& batch, int first, const TensorView& x, const UseCache& use_cache);
  void head_logits(const ExecContext& ctx, const TensorView& x, std::span<const std::int32_t> rows,
                   const std::function<void(std::size_t, const TensorView&)>& visit);
  void ensure_rope(std::span<const std::int32_t> positions);
  const RopeTable* rope(int layer) const;  ///< Null for a layer that turns nothing.
  void embed_tokens(const ExecContext& ctx, std::span<const std::int32_t> tokens, const TensorView& x);
};

}  // namespace temper::model
