#include "model/kept_activations.h"

namespace temper::model {
namespace {

std::span<std::byte> bytes_of(const TensorView& x) { return {static_cast<std::byte*>(x.data), x.bytes()}; }

}  // namespace

KeptActivations::KeptActivations(const ExecContext& ctx, const ArchSpec& arch, std::int64_t tokens, Recompute recompute,
                                 std::unique_ptr<ScratchFile>& file)
    : ctx_(ctx), arch_(arch), tokens_(tokens), recompute_(recompute) {
  Arena& arena = *ctx.workspace;
  const std::size_t layers = static_cast<std::size_t>(arch.num_layers);
  const bool offload = recompute == Recompute::Offload;
  x_.resize(layers + 1);
  // In a file, two of them do: the one that a block reads and the one that it writes.
  for (std::size_t l = 0; l <= layers; ++l)
    x_[l] = offload && l >= 2 ? x_[l - 2] : arena.allocate(DType::F32, {tokens, arch.hidden_size});
  for (std::size_t l = 0; l < layers; ++l) {
    if (recompute == Recompute::None) kept_.push_back(allocate_activations(arena, arch, ctx.compute, tokens));
    if (recompute == Recompute::Selective) kept_.push_back(allocate_products(arena, arch, ctx.compute, tokens));
  }
  if (!offload || arena.dry()) return;
  const std::size_t bytes = layers * x_[0].bytes();
  if (!file || file->size() < bytes) {
    file.reset();
    file = std::make_unique<ScratchFile>(bytes, "the inputs of blocks");
  }
  file_ = file.get();
}

void KeptActivations::share() {
  Arena& arena = *ctx_.workspace;
  if (recompute_ == Recompute::Selective) allocate_derived(arena, arch_, ctx_.compute, tokens_, shared_);
  if (kept_.empty()) shared_ = allocate_activations(arena, arch_, ctx_.compute, tokens_);
}

BlockActivations KeptActivations::forward(int layer) {
  BlockActivations a = kept_.empty() ? shared_ : kept_[static_cast<std::size_t>(layer)];
  if (recompute_ == Recompute::Selective) {
    a.rstd1 = shared_.rstd1, a.n1 = shared_.n1;
    a.rstd2 = shared_.rstd2, a.n2 = shared_.n2;
    a.act = shared_.act;
  }
  a.x_in = enter(layer);
  return a;
}

void KeptActivations::forward_done(int layer) {
  if (file_) file_->write(offset(layer), bytes_of(enter(layer)));
}

BlockActivations KeptActivations::backward(int layer) {
  BlockActivations a = forward(layer);
  if (recompute_ != Recompute::Offload) return a;
  // One of the two buffers holds the gradient by now: that of what left the last block.
  a.x_in = enter(static_cast<int>(arch_.num_layers) - 1);
  if (!file_) return a;
  if (layer + 1 < arch_.num_layers) file_->read(offset(layer), bytes_of(a.x_in));
  if (layer > 0) file_->read_ahead(offset(layer - 1), a.x_in.bytes());
  return a;
}

void KeptActivations::recompute(const BlockCall& call, BlockActivations& a) const {
  switch (recompute_) {
    case Recompute::None: return;
    case Recompute::Selective: return block_rederive(call, a);
    case Recompute::Block:
    case Recompute::Offload: return block_recompute(call, a);
  }
}

}  // namespace temper::model
