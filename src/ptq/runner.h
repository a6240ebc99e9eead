// The forward pass of a calibration set block by block: every batch through one block before any goes through the next, so
// that a block's weights can be replaced in between and the next block sees what the replaced ones give.
#pragma once

#include <vector>

#include "eval/score.h"
#include "model/transformer.h"
#include "ptq/hidden_states.h"

namespace temper::ptq {

class LayerRunner {
 public:
  /// Keeps references to all but `memory_limit` (bytes of hidden states in memory; more lie in a file). Embeds every batch.
  /// Working memory comes from ctx.workspace, for one batch at a time.
  LayerRunner(const ExecContext& ctx, model::Transformer& model, const std::vector<eval::ModelBatch>& batches,
              std::size_t memory_limit);

  /// The next block: hidden states are what enters it.
  int layer() const { return layer_; }
  int layers() const { return static_cast<int>(model_.arch().num_layers); }
  std::int64_t tokens() const { return tokens_; }

  /// Shows the block's inputs for every batch to `taps`; hidden states stay as they are.
  void observe(model::Taps& taps);
  /// Every batch through the block as its weights are now, shown to `taps` where given; on to the next block.
  void advance(model::Taps* taps = nullptr);
  /// Behind the last block: shows the head's input.
  void observe_head(model::Taps& taps);

  /// Hidden states that enter the block, one matrix F32 [tokens, hidden] for each batch.
  const HiddenStates& states() const { return states_; }

 private:
  void run(model::Taps* taps, bool keep);

  const ExecContext& ctx_;
  model::Transformer& model_;
  const std::vector<eval::ModelBatch>& batches_;
  HiddenStates states_;
  std::int64_t tokens_ = 0;
  int layer_ = 0;
};

}  // namespace temper::ptq
