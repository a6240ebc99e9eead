#include "ptq/runner.h"

#include "base/interrupt.h"

namespace temper::ptq {
namespace {

std::vector<std::int64_t> token_counts(const std::vector<eval::ModelBatch>& batches) {
  std::vector<std::int64_t> counts;
  for (const eval::ModelBatch& batch : batches) counts.push_back(static_cast<std::int64_t>(batch.view().tokens.size()));
  return counts;
}

/// Sets taps for as long as it lives.
class Tapping {
 public:
  Tapping(model::Transformer& model, model::Taps* taps) : model_(model) { model.set_taps(taps); }
  ~Tapping() { model_.set_taps(nullptr); }
  Tapping(const Tapping&) = delete;
  Tapping& operator=(const Tapping&) = delete;

 private:
  model::Transformer& model_;
};

}  // namespace

LayerRunner::LayerRunner(const ExecContext& ctx, model::Transformer& model, const std::vector<eval::ModelBatch>& batches,
                         std::size_t memory_limit)
    : ctx_(ctx), model_(model), batches_(batches), states_(token_counts(batches), model.arch().hidden_size, memory_limit) {
  for (std::size_t i = 0; i < batches.size(); ++i) {
    tokens_ += states_[i].rows();
    model.embed(ctx, batches[i].view(), states_[i]);
  }
}

void LayerRunner::run(model::Taps* taps, bool keep) {
  if (layer_ == layers()) throw LogicError("the runner is behind the last block");
  const Tapping tapping(model_, taps);
  model_.with_block(ctx_, layer_, [&](const model::Transformer::BlockRun& block) {
    for (std::size_t i = 0; i < batches_.size(); ++i) {
      if (interrupted()) throw Interrupted("calibration was stopped");
      const ArenaScope scope(*ctx_.workspace);
      TensorView x = states_[i];
      if (keep) {
        x = ctx_.workspace->allocate(DType::F32, states_[i].shape);
        ops::convert(ctx_, states_[i], x);
      }
      block(batches_[i].view(), x);
    }
  });
}

void LayerRunner::observe(model::Taps& taps) { run(&taps, /*keep=*/true); }

void LayerRunner::advance(model::Taps* taps) {
  run(taps, /*keep=*/false);
  ++layer_;
}

void LayerRunner::observe_head(model::Taps& taps) {
  if (layer_ != layers()) throw LogicError("the head's input needs all {} blocks, {} are done", layers(), layer_);
  const Tapping tapping(model_, &taps);
  for (std::size_t i = 0; i < batches_.size(); ++i) model_.top(ctx_, states_[i]);
}

}  // namespace temper::ptq
