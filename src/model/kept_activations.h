// What a training pass keeps for its backward pass, and where.
#pragma once

#include <memory>
#include <vector>

#include "base/scratch_file.h"
#include "model/block.h"

namespace temper::model {

/// The residual stream and the activations of one pass over N tokens, in the context's workspace, as a Recompute says. The
/// residual stream is F32 wherever it is kept: what is computed again begins with the bits that the forward pass saw, and so
/// gradients do not depend on the mode. In order: enter(0) is filled, each block runs with forward(layer) into
/// enter(layer + 1), then blocks backwards with backward(layer); share() begins either.
class KeptActivations {
 public:
  /// `file`, of Recompute::Offload: made here if it is null or too small, and kept by the caller for the next pass.
  KeptActivations(const ExecContext& ctx, const ArchSpec& arch, std::int64_t tokens, Recompute recompute,
                  std::unique_ptr<ScratchFile>& file);

  /// F32 [N, H] = the stream that enters block `layer`; for the number of layers, what leaves the last.
  const TensorView& enter(int layer) const { return x_[static_cast<std::size_t>(layer)]; }
  /// Takes the memory that blocks share in one direction: at the head of the scope around its loop.
  void share();
  /// The buffers of a block's forward pass.
  BlockActivations forward(int layer);
  /// The block is done: enter(layer) may be written over where it does not stay in memory.
  void forward_done(int layer);
  /// The buffers of a block with what is kept of it in them, the rest to be made again.
  BlockActivations backward(int layer);
  /// Makes it.
  void recompute(const BlockCall& call, BlockActivations& a) const;

 private:
  std::size_t offset(int layer) const { return static_cast<std::size_t>(layer) * x_[0].bytes(); }

  const ExecContext& ctx_;
  const ArchSpec& arch_;
  std::int64_t tokens_;
  Recompute recompute_;
  std::vector<TensorView> x_;
  std::vector<BlockActivations> kept_;  // by layer, of None and Selective
  BlockActivations shared_;             // what no block keeps
  ScratchFile* file_ = nullptr;
};

}  // namespace temper::model
