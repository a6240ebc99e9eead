#include "model/transformer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/profile.h"
#include "model/block.h"
#include "model/kept_activations.h"

namespace temper::model {
namespace {

constexpr std::int64_t kLogitsChunk = 128;  // rows of logits in memory at a time

std::vector<std::int32_t> targets_of(const BatchView& batch, std::span<const std::int32_t> rows) {
  std::vector<std::int32_t> targets;
  for (const std::int32_t row : rows) targets.push_back(batch.targets[static_cast<std::size_t>(row)]);
  return targets;
}

WeightForm form_for(std::size_t rows) {
  return static_cast<std::int64_t>(rows) <= ops::kFewRows ? WeightForm::Held : WeightForm::Products;
}

void check_batch(const BatchView& batch, bool with_targets) {
  if (batch.tokens.empty() || batch.positions.size() != batch.tokens.size() ||
      (with_targets && batch.targets.size() != batch.tokens.size()))
    throw LogicError("batch of {} tokens, {} positions, {} targets", batch.tokens.size(), batch.positions.size(),
                     batch.targets.size());
}

/// Rows of the residual stream through the final norm, in the compute dtype.
struct FinalNorm {
  TensorView x;       // F32 [n, H]: gathered rows
  TensorView normed;  // T [n, H]
  TensorView rstd;    // F32 [n]
};
FinalNorm final_norm(const ExecContext& ctx, const ArchSpec& arch, const WeightSource& weights, const TensorView& x,
                     std::span<const std::int32_t> rows) {
  const std::int64_t n = static_cast<std::int64_t>(rows.size());
  FinalNorm out{ctx.workspace->allocate(DType::F32, {n, arch.hidden_size}),
                ctx.workspace->allocate(ctx.compute, {n, arch.hidden_size}), ctx.workspace->allocate(DType::F32, {n})};
  ops::gather_rows(ctx, x, rows, out.x);
  ops::rmsnorm(ctx, out.x, weights.final_norm(), arch.rms_norm_eps, out.normed, out.rstd);
  return out;
}

double checked_sum(std::span<const float> nll, std::span<const std::int32_t> rows) {
  double sum = 0;
  for (std::size_t i = 0; i < nll.size(); ++i) {
    if (!std::isfinite(nll[i])) throw Diverged("the loss of token {} of the batch is {}", rows[i], nll[i]);
    sum += nll[i];
  }
  return sum;
}

/// The next `tokens` rows of the cache of one layer as the buffers that the block writes and attention reads.
void append_to_cache(KvCache& cache, int layer, std::int64_t tokens, BlockActivations& a) {
  const std::size_t l = static_cast<std::size_t>(layer);
  const std::int64_t end = cache.length + tokens;
  a.k = cache.k[l].view().slice_rows(cache.length, end);
  a.v = cache.v[l].view().slice_rows(cache.length, end);
  a.keys = cache.k[l].view().slice_rows(0, end);
  a.values = cache.v[l].view().slice_rows(0, end);
}

BlockBaseGradients block_gradients(const BaseGradients* base, const TensorTable& table, int layer) {
  BlockBaseGradients out;
  if (!base) return out;
  fill_vectors(out.vectors, table, layer, [&](std::size_t index) { return (*base)[index]; });
  for (std::size_t l = 0; l < kLinears.size(); ++l) out.linear[l] = (*base)[table.linear(layer, kLinears[l])];
  return out;
}

}  // namespace

KvCache::KvCache(const ArchSpec& arch, DType compute, std::int64_t capacity_) : capacity(capacity_) {
  for (std::int64_t layer = 0; layer < arch.num_layers; ++layer) {
    k.emplace_back(compute, Shape{capacity, arch.kv_size()});
    v.emplace_back(compute, Shape{capacity, arch.kv_size()});
  }
}

/// Calls of the blocks of one pass; acquires a block's weights for the duration of a visit.
class Transformer::Pass {
 public:
  Pass(Transformer& model, const ExecContext& ctx, const BatchView& batch, WeightForm form)
      : model_(model), ctx_(ctx), batch_(batch), form_(form) {
    model.ensure_rope(batch.positions);
  }

  template <typename Visit>
  void block(int layer, Visit&& visit) {
    block(layer, form_, std::forward<Visit>(visit));
  }
  template <typename Visit>
  void block(int layer, WeightForm form, Visit&& visit) {
    const BlockWeights weights = acquire(layer, form);
    visit(call(layer, weights));
    model_.weights_.release(layer);
  }
  BlockCall call(int layer, const BlockWeights& weights) const {
    BlockCall call{ctx_,           model_.arch_, batch_,       model_.rope(layer),   weights, model_.adapters_, {}, dropout_,
                   model_.merged_, layer,        model_.taps_, model_.backward_taps_};
    if (const Adapters* adapters = model_.adapters_)
      for (std::size_t l = 0; l < kLinears.size(); ++l) call.lora[l] = adapters->find(layer, kLinears[l]);
    return call;
  }

  /// A pass of training, of tokens [first, …) of the step.
  void train(std::int64_t step, std::int64_t first) {
    const Adapters* adapters = model_.adapters_;
    if (!adapters || model_.merged_ || adapters->config().dropout == 0) return;
    constexpr std::uint64_t kNoInitialValues = std::uint64_t{1} << 63;  // streams of which nothing else is drawn
    dropout_ = {static_cast<float>(adapters->config().dropout), adapters->seed(),
                kNoInitialValues | static_cast<std::uint64_t>(step) << 24, first};
  }

  int layers() const { return static_cast<int>(model_.arch_.num_layers); }
  std::int64_t tokens() const { return static_cast<std::int64_t>(batch_.tokens.size()); }
  Arena& arena() const { return *ctx_.workspace; }
  BlockActivations activations() const {
    return allocate_activations(*ctx_.workspace, model_.arch_, ctx_.compute, tokens());
  }

 private:
  BlockWeights acquire(int layer, WeightForm form) {
    const ProfileSection section("weights");
    return model_.weights_.acquire(ctx_, layer, form);
  }

  Transformer& model_;
  const ExecContext& ctx_;
  const BatchView& batch_;
  WeightForm form_;
  std::optional<ops::Dropout> dropout_;
};

Transformer::Transformer(const ArchSpec& arch, WeightSource& weights, Adapters* adapters, bool merged)
    : arch_(arch), weights_(weights), adapters_(adapters), merged_(merged), table_(arch) {}

Transformer::~Transformer() = default;

void Transformer::ensure_rope(std::span<const std::int32_t> positions) {
  const std::int64_t needed = 1 + *std::max_element(positions.begin(), positions.end());
  const bool other_factors = arch_.rope.depends_on_length() && (needed > arch_.rope.original_max_positions) !=
                                                                   (rope_length_ > arch_.rope.original_max_positions);
  if (global_rope_.cos && global_rope_.cos->rows() >= needed && !other_factors) return;
  constexpr std::int64_t kStep = 1024;
  const std::int64_t rows = (needed + kStep - 1) / kStep * kStep;
  rope_length_ = needed;
  global_rope_ = rope_table(arch_.rope, arch_.rotated, rows, needed);
  if (arch_.any_layer(LayerRope::Local)) local_rope_ = rope_table(arch_.local_rope, arch_.rotated, rows, needed);
}

const RopeTable* Transformer::rope(int layer) const {
  switch (arch_.layer(layer).rope) {
    case LayerRope::Global: return &global_rope_;
    case LayerRope::Local: return &local_rope_;
    case LayerRope::None: break;
  }
  return nullptr;
}

void Transformer::embed_tokens(const ExecContext& ctx, std::span<const std::int32_t> tokens, const TensorView& x) {
  ops::embedding(ctx, weights_.embedding(), tokens, x);
  if (const float factor = arch_.embedding_scale(); factor != 1.0f) ops::scale(ctx, x, factor);
}

TensorView Transformer::run_blocks(const ExecContext& ctx, const BatchView& batch, const UseCache& use_cache) {
  const TensorView x =
      ctx.workspace->allocate(DType::F32, {static_cast<std::int64_t>(batch.tokens.size()), arch_.hidden_size});
  embed_tokens(ctx, batch.tokens, x);
  run_blocks(ctx, batch, 0, x, use_cache);
  return x;
}

void Transformer::run_blocks(const ExecContext& ctx, const BatchView& batch, int first, const TensorView& x,
                             const UseCache& use_cache) {
  ArenaScope scope(*ctx.workspace);
  Pass pass(*this, ctx, batch, form_for(batch.tokens.size()));
  BlockActivations a = pass.activations();
  a.x_in = a.x_mid = x;  // nothing is kept: the residual stream is updated in place
  for (int layer = first; layer < pass.layers(); ++layer) {
    if (use_cache) use_cache(layer, a);
    pass.block(layer, [&](const BlockCall& call) {
      const ProfileSection section("forward");
      block_forward(call, a, x);
    });
  }
}

void Transformer::tap_head(const ExecContext& ctx, const TensorView& x) const {
  if (taps_) taps_->input(ctx, -1, LinearInput::Head, x);
}

void Transformer::embed(const ExecContext& ctx, const BatchView& batch, const TensorView& x) {
  check_batch(batch, false);
  embed_tokens(ctx, batch.tokens, x);
}

void Transformer::with_block(const ExecContext& ctx, int layer, const std::function<void(const BlockRun&)>& visit) {
  const BlockWeights weights = weights_.acquire(ctx, layer, WeightForm::Dense);
  visit([&](const BatchView& batch, const TensorView& x) {
    ArenaScope scope(*ctx.workspace);
    Pass pass(*this, ctx, batch, WeightForm::Dense);
    BlockActivations a = pass.activations();
    a.x_in = a.x_mid = x;
    block_forward(pass.call(layer, weights), a, x);
  });
  weights_.release(layer);
}

void Transformer::top(const ExecContext& ctx, const TensorView& x) {
  std::vector<std::int32_t> rows(static_cast<std::size_t>(x.rows()));
  std::iota(rows.begin(), rows.end(), 0);
  ArenaScope scope(*ctx.workspace);
  tap_head(ctx, final_norm(ctx, arch_, weights_, x, rows).normed);
}

std::vector<std::int32_t> Transformer::labelled_rows(const BatchView& batch) {
  std::vector<std::int32_t> rows;
  for (std::size_t t = 0; t < batch.targets.size(); ++t)
    if (batch.targets[t] >= 0) rows.push_back(static_cast<std::int32_t>(t));
  return rows;
}

void Transformer::forward_blocks(Pass& pass, KeptActivations& kept) {
  ArenaScope scope(pass.arena());
  kept.share();
  for (int layer = 0; layer < pass.layers(); ++layer) {
    pass.block(layer, WeightForm::Products, [&](const BlockCall& call) {
      const ProfileSection section("forward");
      BlockActivations a = kept.forward(layer);
      block_forward(call, a, kept.enter(layer + 1));
    });
    kept.forward_done(layer);
  }
}

void Transformer::backward_blocks(Pass& pass, KeptActivations& kept, const TensorView& dx, const BaseGradients* base) {
  ArenaScope scope(pass.arena());
  kept.share();
  for (int layer = pass.layers() - 1; layer >= 0; --layer)
    pass.block(layer, [&](const BlockCall& call) {
      BlockActivations a = kept.backward(layer);
      {
        const ProfileSection section("recompute");
        kept.recompute(call, a);
      }
      const ProfileSection section("backward");
      block_backward(call, a, dx, block_gradients(base, table_, layer));
    });
}

namespace {

const TensorView* wanted(const BaseGradients* base, std::size_t index) {
  return base && (*base)[index] ? &(*base)[index] : nullptr;
}

}  // namespace

/// Loss over labelled rows of x F32 [N, H], what left the last block; x becomes the gradient of it.
void Transformer::loss_backward(const ExecContext& ctx, const BatchView& batch, const HeadLoss& loss,
                                const BaseGradients* base, const TensorView& x) {
  ArenaScope scope(*ctx.workspace);
  const std::vector<std::int32_t> rows = labelled_rows(batch);
  const FinalNorm top = final_norm(ctx, arch_, weights_, x, rows);
  tap_head(ctx, top.normed);
  quant::RangeGradient head_range;
  const HeadCall head{top.normed,
                      weights_.head(ctx, WeightForm::Dense),
                      arch_.logit_softcap,
                      rows,
                      targets_of(batch, rows),
                      {ctx.workspace->allocate(DType::F32, top.x.shape), wanted(base, table_.head()), &head_range}};
  loss(ctx, head);
  if (backward_taps_) backward_taps_->head_range(head_range);
  const TensorView dtop = ctx.workspace->allocate(DType::F32, top.x.shape);
  ops::zero(ctx, dtop);
  ops::rmsnorm_backward(ctx, head.gradients.dhidden, top.x, weights_.final_norm(), top.rstd, dtop,
                        wanted(base, table_.final_norm()));
  ops::zero(ctx, x);
  ops::scatter_rows(ctx, dtop, rows, x);
}

double Transformer::forward_backward(const ExecContext& ctx, const BatchView& batch, float grad_scale,
                                     const BaseGradients* base) {
  double sum = 0;
  forward_backward(
      ctx, batch,
      [&](const ExecContext&, const HeadCall& call) {
        std::vector<float> nll(call.rows.size());
        ops::linear_cross_entropy(ctx, call.hidden, call.head, call.targets, grad_scale, nll, &call.gradients, call.cap);
        sum = checked_sum(nll, call.rows);
      },
      base);
  return sum;
}

void Transformer::forward_backward(const ExecContext& ctx, const BatchView& batch, const HeadLoss& loss,
                                   const BaseGradients* base) {
  check_batch(batch, true);
  const std::int64_t first = std::exchange(step_tokens_, step_tokens_ + std::ssize(batch.tokens));
  if (std::ranges::none_of(batch.targets, [](std::int32_t target) { return target >= 0; })) return;
  ArenaScope scope(*ctx.workspace);
  Pass pass(*this, ctx, batch, WeightForm::Dense);
  pass.train(step_, first);
  KeptActivations kept(ctx, arch_, pass.tokens(), recompute_, offloaded_);
  embed_tokens(ctx, batch.tokens, kept.enter(0));
  forward_blocks(pass, kept);
  const TensorView& dx = kept.enter(pass.layers());
  loss_backward(ctx, batch, loss, base, dx);
  backward_blocks(pass, kept, dx, base);
  if (const TensorView* dtable = wanted(base, table_.embedding())) {
    if (arch_.embedding_scale() != 1.0f) ops::scale(ctx, dx, arch_.embedding_scale());
    ops::embedding_backward(ctx, dx, batch.tokens, *dtable);
  }
}

void Transformer::head_input(const ExecContext& ctx, const BatchView& batch, std::span<const std::int32_t> rows,
                             const TensorView& hidden) {
  check_batch(batch, false);
  ArenaScope scope(*ctx.workspace);
  const TensorView x = run_blocks(ctx, batch);
  ops::convert(ctx, final_norm(ctx, arch_, weights_, x, rows).normed, hidden);
}

std::vector<float> Transformer::nll(const ExecContext& ctx, const BatchView& batch) {
  check_batch(batch, true);
  const std::vector<std::int32_t> rows = labelled_rows(batch);
  std::vector<float> nll(rows.size());
  if (rows.empty()) return nll;
  ArenaScope scope(*ctx.workspace);
  const TensorView x = run_blocks(ctx, batch);
  const FinalNorm top = final_norm(ctx, arch_, weights_, x, rows);
  tap_head(ctx, top.normed);
  ops::linear_cross_entropy(ctx, top.normed, weights_.head(ctx, WeightForm::Products), targets_of(batch, rows), 0.0f, nll,
                            nullptr, arch_.logit_softcap);
  return nll;
}

void Transformer::logits(const ExecContext& ctx, const BatchView& batch, std::span<const std::int32_t> rows,
                         const std::function<void(std::size_t, const TensorView&)>& visit) {
  check_batch(batch, false);
  ArenaScope scope(*ctx.workspace);
  head_logits(ctx, run_blocks(ctx, batch), rows, visit);
}

void Transformer::logits_from(const ExecContext& ctx, const BatchView& batch, int layer, const TensorView& x,
                              std::span<const std::int32_t> rows,
                              const std::function<void(std::size_t, const TensorView&)>& visit) {
  check_batch(batch, false);
  run_blocks(ctx, batch, layer, x, {});
  head_logits(ctx, x, rows, visit);
}

void Transformer::head_logits(const ExecContext& ctx, const TensorView& x, std::span<const std::int32_t> rows,
                              const std::function<void(std::size_t, const TensorView&)>& visit) {
  ArenaScope scope(*ctx.workspace);
  const FinalNorm top = final_norm(ctx, arch_, weights_, x, rows);
  tap_head(ctx, top.normed);
  const std::int64_t n = static_cast<std::int64_t>(rows.size());
  const ops::Weight head = weights_.head(ctx, form_for(rows.size()));
  const TensorView chunk = ctx.workspace->allocate(DType::F32, {std::min(n, kLogitsChunk), arch_.vocab_size});
  for (std::int64_t first = 0; first < n; first += kLogitsChunk) {
    const std::int64_t end = std::min(first + kLogitsChunk, n);
    const TensorView out = chunk.slice_rows(0, end - first);
    ops::linear(ctx, top.normed.slice_rows(first, end), head, out);
    if (arch_.logit_softcap > 0) ops::softcap(ctx, out, arch_.logit_softcap);
    visit(static_cast<std::size_t>(first), out);
  }
}

void Transformer::step(const ExecContext& ctx, KvCache& cache, std::span<const std::int32_t> tokens, std::span<float> out) {
  const std::int64_t n = static_cast<std::int64_t>(tokens.size());
  if (cache.length + n > cache.capacity)
    throw Unsupported("the context is full: {} tokens and {} more exceed {}", cache.length, n, cache.capacity);
  if (out.size() != static_cast<std::size_t>(arch_.vocab_size))
    throw LogicError("logits of {} for a vocabulary of {}", out.size(), arch_.vocab_size);
  std::vector<std::int32_t> positions(tokens.size());
  for (std::size_t i = 0; i < positions.size(); ++i)
    positions[i] = static_cast<std::int32_t>(cache.length) + static_cast<std::int32_t>(i);
  const ops::AttentionSpan span{0, static_cast<std::int32_t>(n), 0, static_cast<std::int32_t>(cache.length + n)};
  const BatchView batch{tokens, positions, {}, {&span, 1}};
  check_batch(batch, false);
  ArenaScope scope(*ctx.workspace);
  const TensorView x = run_blocks(ctx, batch, [&](int layer, BlockActivations& a) { append_to_cache(cache, layer, n, a); });
  const std::int32_t last = static_cast<std::int32_t>(n - 1);
  const FinalNorm top = final_norm(ctx, arch_, weights_, x, {&last, 1});
  tap_head(ctx, top.normed);
  const TensorView logits(out.data(), DType::F32, {1, arch_.vocab_size});
  ops::linear(ctx, top.normed, weights_.head(ctx, WeightForm::Held), logits);
  if (arch_.logit_softcap > 0) ops::softcap(ctx, logits, arch_.logit_softcap);
  cache.length += n;
}

void Transformer::step_side_by_side(const ExecContext& ctx, KvCache& cache, std::int64_t position,
                                    std::span<const std::int32_t> tokens,
                                    const std::function<void(std::size_t, const TensorView&)>& visit) {
  const std::int64_t n = static_cast<std::int64_t>(tokens.size()), each = n > 0 ? cache.capacity / n : 0;
  if (position >= each) throw Unsupported("the context is full: token {} of {} that each sequence may have", position, each);
  const std::vector<std::int32_t> positions(tokens.size(), static_cast<std::int32_t>(position));
  std::vector<std::int32_t> sequences(tokens.size()), cache_rows(tokens.size());
  std::vector<ops::AttentionSpan> spans;
  for (std::int32_t s = 0; s < static_cast<std::int32_t>(n); ++s) {
    const std::int32_t first = s * static_cast<std::int32_t>(each), row = first + static_cast<std::int32_t>(position);
    sequences[static_cast<std::size_t>(s)] = s;
    cache_rows[static_cast<std::size_t>(s)] = row;
    spans.push_back({s, s + 1, first, row + 1});
  }
  const BatchView batch{tokens, positions, {}, spans};
  check_batch(batch, false);
  ArenaScope scope(*ctx.workspace);
  const TensorView x = run_blocks(ctx, batch, [&](int layer, BlockActivations& a) {
    a.keys = cache.k[static_cast<std::size_t>(layer)];
    a.values = cache.v[static_cast<std::size_t>(layer)];
    a.cache_rows = cache_rows;
  });
  head_logits(ctx, x, sequences, visit);
}

}  // namespace temper::model
