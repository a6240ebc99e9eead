// One transformer block as three mirrored sequences of operations: forward, recompute, backward.
#pragma once

#include <array>
#include <optional>
#include <span>

#include "model/transformer.h"

namespace temper::model {

/// What a block works on. T is the context's compute dtype, N the number of tokens of the batch, H hidden_size.
struct BlockCall {
  const ExecContext& ctx;
  const ArchSpec& arch;
  const BatchView& batch;
  const RopeTable* rope;  ///< Null for a layer that turns nothing.
  const BlockWeights& weights;
  const Adapters* adapters;                                  ///< Whose entries `lora` has; null: none.
  std::array<const Adapters::Entry*, kLinears.size()> lora;  ///< Null where a projection has no adapter.
  std::optional<ops::Dropout> dropout;                       ///< Of adapters' inputs; `stream` is the step's.
  bool merged;                                               ///< The weights contain the adapters already.
  int layer = 0;                                             ///< For `taps` alone.
  Taps* taps = nullptr;                                      ///< Told of each linear's input; null: nobody looks.
  BackwardTaps* backward_taps = nullptr;                     ///< Takes what gradients it wants; null: nobody does.
};

/// Named buffers of a block's forward pass, kept for its backward pass.
struct BlockActivations {
  TensorView x_in;            ///< F32 [N, H] residual stream entering the block.
  TensorView rstd1, n1;       ///< F32 [N]; T [N, H] normed input of attention.
  TensorView q_raw, k_raw;    ///< F32, with norms of q and k: what these norms see.
  TensorView rstd_q, rstd_k;  ///< F32 [N · heads], [N · kv_heads].
  TensorView q, k, v;         ///< T [N, q_size], [N, kv_size], [N, kv_size]; q and k turned by their positions.
  TensorView keys, values;    ///< What attention reads: k and v, or a cache that ends with them.
  std::span<const std::int32_t>
      cache_rows;              ///< Rows of keys and values to which k and v are copied; empty: they stand there.
  TensorView attended, lse;    ///< T [N, q_size]; F32 [N, heads].
  TensorView o, rstd_o;        ///< F32 [N, H], [N], with a norm after attention: what it sees.
  TensorView x_mid;            ///< F32 [N, H] residual stream after attention.
  TensorView rstd2, n2;        ///< F32 [N]; T [N, H] normed input of the MLP.
  TensorView gate, up, act;    ///< T [N, intermediate_size].
  TensorView down, rstd_down;  ///< F32 [N, H], [N], with a norm after the MLP: what it sees.
};

/// Buffers for N tokens from `arena`; x_in stays null.
BlockActivations allocate_activations(Arena& arena, const ArchSpec& arch, DType compute, std::int64_t tokens);
/// The same without those that block_rederive fills: they stay null, too.
BlockActivations allocate_products(Arena& arena, const ArchSpec& arch, DType compute, std::int64_t tokens);
/// The buffers that block_rederive fills.
void allocate_derived(Arena& arena, const ArchSpec& arch, DType compute, std::int64_t tokens, BlockActivations& a);

/// x_out F32 [N, H] = block(a.x_in); fills every buffer of `a`. x_out may be a.x_in's memory if a.x_mid is too.
void block_forward(const BlockCall& call, BlockActivations& a, const TensorView& x_out);

/// Fills the buffers of `a` again from a.x_in, as block_forward did; all that the backward pass reads.
void block_recompute(const BlockCall& call, BlockActivations& a);

/// Fills n1, n2 (with rstd) and act again from x_in, x_mid, gate and up, as block_forward did: no product is computed.
void block_rederive(const BlockCall& call, BlockActivations& a);

/// dx F32 [N, H]: gradient of x_out in, of a.x_in out. Adapters' gradients are +=, and those of base weights where `wanted`.
/// Overwrites a.gate and a.up.
struct BlockBaseGradients {
  std::array<TensorView, kBlockVectors> vectors;
  std::array<TensorView, kLinears.size()> linear;
};
void block_backward(const BlockCall& call, const BlockActivations& a, const TensorView& dx,
                    const BlockBaseGradients& wanted);

}  // namespace temper::model
