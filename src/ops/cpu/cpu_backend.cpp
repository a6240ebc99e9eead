#include "ops/cpu/cpu_backend.h"

#include <cmath>
#include <cstring>
#include <mutex>

#include "ops/backend.h"
#include "ops/cpu/attention.h"
#include "ops/cpu/dry_backend.h"
#include "ops/cpu/head_loss.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/linear.h"
#include "ops/cpu/low_rank.h"
#include "ops/cpu/matmul.h"
#include "ops/cpu/optimizer_states.h"
#include "ops/cpu/rows.h"
#include "ops/cpu/tasks.h"
#include "quant/learnt_scales.h"

namespace temper::ops {
namespace cpu {
namespace {

const Kernels& kernels_for([[maybe_unused]] Isa isa) {
#ifdef TEMPER_X86_KERNELS
  if (isa >= Isa::Avx512Bf16) return avx512bf16_kernels();
  if (isa == Isa::Avx512) return avx512_kernels();
  if (isa == Isa::Avx2) return avx2_kernels();
#endif
  return generic_kernels();
}

std::byte* row_address(const TensorView& x, Index row) { return static_cast<std::byte*>(rows_of(x, row).data); }

/// Rows [first, first + n) of base with the pair merged.
void merge_rows(const Kernels& kernels, const TensorView& base, const LoraView& lora, Index first, Index n, Rows out) {
  kernels.merge_lora(rows_of(base, first), lora.a.as<float>(), lora.a.row_stride,
                     lora.b.as<float>() + first * lora.b.row_stride, lora.b.row_stride, lora.a.rows(), lora.scale,
                     lora.gain ? lora.gain.as<float>() + first : nullptr, out, n, base.cols());
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(Isa isa) : isa_(isa), kernels_(kernels_for(isa)) {}

  void matmul(const ExecContext& ctx, const TensorView& a, const TensorView& b, const TensorView& c,
              MatmulOptions options) const override {
    cpu::matmul(ctx, isa_, kernels_, a, b, c, options);
  }

  void linear(const ExecContext& ctx, const TensorView& x, std::span<const LinearPart> parts,
              bool accumulate) const override {
    cpu::linear(ctx, isa_, kernels_, x, parts, accumulate);
  }

  void round_activations(const ExecContext&, const TensorView& x, const quant::InputFormat& rounding,
                         const TensorView& out) const override {
    cpu::round_activations(x, rounding, out);
  }

  quant::RangeGradient clip_backward(const ExecContext& ctx, const TensorView& x, const quant::InputFormat& rounding,
                                     const TensorView& grad) const override;

  void convert(const ExecContext&, const TensorView& in, const TensorView& out) const override {
    for_rows(in.rows(), in.cols(), [&](Index begin, Index end) {
      kernels_.convert(rows_of(in, begin), rows_of(out, begin), end - begin, in.cols());
    });
  }

  void add(const ExecContext&, const TensorView& a, const TensorView& b, const TensorView& out) const override {
    for_rows(a.rows(), a.cols(), [&](Index begin, Index end) {
      kernels_.add(rows_of(a, begin), rows_of(b, begin), rows_of(out, begin), end - begin, a.cols());
    });
  }

  void add_row(const ExecContext&, const TensorView& x, const TensorView& row) const override {
    for_rows(x.rows(), x.cols(), [&](Index begin, Index end) {
      for (Index r = begin; r < end; ++r) kernels_.add(rows_of(x, r), rows_of(row), rows_of(x, r), 1, x.cols());
    });
  }

  void add_column_sums(const ExecContext& ctx, const TensorView& x, const TensorView& sums) const override {
    add_block_sums(ctx, x.rows(), sums, [&](Index row, float* mine) {
      const Rows to{mine, x.cols(), Elem::F32};
      kernels_.add(to, rows_of(x, row), to, 1, x.cols());
    });
  }

  void scale(const ExecContext&, const TensorView& x, float factor) const override {
    for_rows(x.rows(), x.cols(), [&](Index begin, Index end) {
      for (Index r = begin; r < end; ++r) kernels_.scale(x.as<float>() + r * x.row_stride, x.cols(), factor);
    });
  }

  void scale_columns(const ExecContext&, const TensorView& x, const TensorView& row, const TensorView& out) const override {
    for_rows(x.rows(), x.cols(), [&](Index begin, Index end) {
      kernels_.scale_columns(rows_of(x, begin), row.as<float>(), rows_of(out, begin), end - begin, x.cols());
    });
  }

  void dropout(const ExecContext&, const TensorView& x, const Dropout& draws, const TensorView& out) const override {
    for_rows(x.rows(), x.cols(), [&](Index begin, Index end) {
      Dropout part = draws;
      part.first_row += begin;
      kernels_.dropout(rows_of(x, begin), rows_of(out, begin), end - begin, x.cols(), part);
    });
  }

  void zero(const ExecContext&, const TensorView& x) const override {
    for_rows(x.rows(), x.cols(), [&](Index begin, Index end) {
      for (Index r = begin; r < end; ++r) std::memset(row_address(x, r), 0, row_bytes(x));
    });
  }

  void gather_rows(const ExecContext&, const TensorView& in, std::span<const std::int32_t> rows,
                   const TensorView& out) const override {
    for_rows(out.rows(), out.cols(), [&](Index begin, Index end) {
      for (Index r = begin; r < end; ++r)
        std::memcpy(row_address(out, r), row_address(in, rows[static_cast<std::size_t>(r)]), row_bytes(in));
    });
  }

  void scatter_rows(const ExecContext&, const TensorView& in, std::span<const std::int32_t> rows,
                    const TensorView& out) const override {
    for_rows(in.rows(), in.cols(), [&](Index begin, Index end) {
      for (Index r = begin; r < end; ++r)
        std::memcpy(row_address(out, rows[static_cast<std::size_t>(r)]), row_address(in, r), row_bytes(in));
    });
  }

  void embedding(const ExecContext& ctx, const Weight& table, std::span<const std::int32_t> tokens,
                 const TensorView& out) const override {
    cpu::embedding(ctx, kernels_, table, tokens, out);
  }

  /// Cut by columns, so that each element of the table meets its tokens in order whatever the number of threads.
  void embedding_backward(const ExecContext&, const TensorView& dout, std::span<const std::int32_t> tokens,
                          const TensorView& dtable) const override {
    parallel_for(dout.cols(), 64, [&](Index begin, Index end) {
      const TensorView from = dout.slice_cols(begin, end), to = dtable.slice_cols(begin, end);
      for (Index t = 0; t < from.rows(); ++t) {
        const Rows target = rows_of(to, tokens[static_cast<std::size_t>(t)]);
        kernels_.add(target, rows_of(from, t), target, 1, end - begin);
      }
    });
  }

  void rmsnorm(const ExecContext&, const TensorView& x, const TensorView& weight, float eps, const TensorView& y,
               const TensorView& rstd) const override {
    for_rows(x.rows(), x.cols(), [&](Index begin, Index end) {
      kernels_.rmsnorm(rows_of(x, begin), weight.as<float>(), eps, rows_of(y, begin), rstd.as<float>() + begin, end - begin,
                       x.cols());
    });
  }

  void rmsnorm_backward(const ExecContext& ctx, const TensorView& dy, const TensorView& x, const TensorView& weight,
                        const TensorView& rstd, const TensorView& dx, const TensorView* dweight) const override {
    if (dweight)
      add_block_sums(ctx, x.rows(), *dweight, [&](Index row, float* mine) {
        kernels_.rmsnorm_dweight(rows_of(dy, row), rows_of(x, row), rstd.as<float>() + row, mine, 1, x.cols());
      });
    for_rows(x.rows(), x.cols(), [&](Index begin, Index end) {
      kernels_.rmsnorm_backward(rows_of(dy, begin), rows_of(x, begin), weight.as<float>(), rstd.as<float>() + begin,
                                rows_of(dx, begin), end - begin, x.cols());
    });
  }

  void rope(const ExecContext&, const TensorView& x, std::int64_t head_dim, std::span<const std::int32_t> positions,
            const TensorView& cos, const TensorView& sin, bool inverse) const override {
    for_rows(x.rows(), x.cols(), [&](Index begin, Index end) {
      kernels_.rope(rows_of(x, begin), x.cols() / head_dim, head_dim, cos.cols(), positions.data() + begin, rows_of(cos),
                    rows_of(sin), inverse, end - begin);
    });
  }

  void glu(const ExecContext&, Gate kind, const TensorView& gate, const TensorView& up,
           const TensorView& out) const override {
    for_rows(gate.rows(), gate.cols(), [&](Index begin, Index end) {
      kernels_.glu(kind, rows_of(gate, begin), rows_of(up, begin), rows_of(out, begin), end - begin, gate.cols());
    });
  }

  void glu_backward(const ExecContext&, Gate kind, const TensorView& gate, const TensorView& up, const TensorView& dout,
                    const TensorView& dgate, const TensorView& dup) const override {
    for_rows(gate.rows(), gate.cols(), [&](Index begin, Index end) {
      kernels_.glu_backward(kind, rows_of(gate, begin), rows_of(up, begin), rows_of(dout, begin), rows_of(dgate, begin),
                            rows_of(dup, begin), end - begin, gate.cols());
    });
  }

  void softcap(const ExecContext&, const TensorView& x, float cap) const override {
    for_rows(x.rows(), x.cols(), [&](Index begin, Index end) {
      for (Index r = begin; r < end; ++r) kernels_.softcap(x.as<float>() + r * x.row_stride, x.cols(), 1.0f, cap);
    });
  }

  void softcap_backward(const ExecContext&, const TensorView& y, float cap, const TensorView& grad) const override {
    for_rows(y.rows(), y.cols(), [&](Index begin, Index end) {
      kernels_.softcap_backward(rows_of(y, begin), cap, rows_of(grad, begin), end - begin, y.cols());
    });
  }

  void attention(const ExecContext& ctx, const TensorView& q, const TensorView& k, const TensorView& v,
                 std::span<const AttentionSpan> spans, const AttentionShape& shape, const TensorView& out,
                 const TensorView* lse) const override {
    cpu::attention(ctx, kernels_, q, k, v, spans, shape, out, lse);
  }

  void attention_backward(const ExecContext& ctx, const TensorView& q, const TensorView& k, const TensorView& v,
                          std::span<const AttentionSpan> spans, const AttentionShape& shape, const TensorView& out,
                          const TensorView& lse, const TensorView& dout, const TensorView& dq, const TensorView& dk,
                          const TensorView& dv) const override {
    cpu::attention_backward(ctx, kernels_, q, k, v, spans, shape, {out, lse, dout, dq, dk, dv});
  }

  void cross_entropy(const ExecContext&, const TensorView& logits, std::span<const std::int32_t> targets, float grad_scale,
                     std::span<float> nll, const TensorView* dlogits) const override {
    for_rows(logits.rows(), logits.cols(), [&](Index begin, Index end) {
      kernels_.cross_entropy(rows_of(logits, begin), targets.data() + begin, grad_scale, nll.data() + begin,
                             dlogits ? rows_of(*dlogits, begin) : Rows{}, end - begin, logits.cols());
    });
  }

  void linear_cross_entropy(const ExecContext& ctx, const TensorView& hidden, const Weight& head,
                            std::span<const std::int32_t> targets, float grad_scale, std::span<float> nll,
                            const HeadGradients* gradients, float cap) const override {
    cpu::linear_cross_entropy(ctx, *ctx.backend, kernels_, hidden, head, targets, grad_scale, nll, gradients, cap);
  }

  void linear_distillation(const ExecContext& ctx, const TensorView& hidden, const Weight& head,
                           std::span<const std::int32_t> targets, const TeacherRows& teacher, const DistillationMix& mix,
                           float grad_scale, std::span<float> nll, std::span<float> kl, const HeadGradients* gradients,
                           float cap) const override {
    cpu::linear_distillation(ctx, *ctx.backend, kernels_, hidden, head, targets, teacher, mix, grad_scale, nll, kl,
                             gradients, cap);
  }

  void lora_backward(const ExecContext& ctx, const TensorView& x, const TensorView& dy, const LoraGradients& lora,
                     const TensorView* dyb) const override {
    cpu::lora_backward(ctx, kernels_, x, dy, lora, dyb);
  }

  void merge_lora(const ExecContext&, const TensorView& base, const LoraView& lora, const TensorView& out) const override {
    for_rows(base.rows(), base.cols(), [&](Index begin, Index end) { merge(base, lora, out, begin, end); });
  }

  void merge_and_encode(const ExecContext& ctx, const TensorView& base, const LoraView* lora, DType storage,
                        const quant::Codec& codec, std::span<std::byte> encoded, quant::CodeStats* stats,
                        Parameters parameters, std::span<const float> factors) const override;
  void factor_gradients(const ExecContext& ctx, const LearntScales& scales, const TensorView& dw,
                        std::span<float> grads) const override;

  void decode(const ExecContext&, const quant::EncodedView& encoded, const TensorView& out) const override {
    for_rows(encoded.rows, encoded.cols, [&](Index begin, Index end) {
      encoded.codec->decode_rows(encoded.row_range(begin, end), matrix(out).slice_rows(begin, end));
    });
  }

  void adamw(const ExecContext&, const TensorView& param, const TensorView& grad, const OptimizerState& m,
             const OptimizerState& v, const AdamW& options) const override {
    const double step = static_cast<double>(options.step);
    const AdamWFactors factors{.lr = options.lr,
                               .beta1 = options.beta1,
                               .beta2 = options.beta2,
                               .eps = options.eps,
                               .decay = 1.0f - options.lr * options.weight_decay,
                               .correction1 = static_cast<float>(1.0 / (1.0 - std::pow(double{options.beta1}, step))),
                               .correction2 = static_cast<float>(1.0 / (1.0 - std::pow(double{options.beta2}, step))),
                               .grad_scale = options.grad_scale};
    float *p = param.as<float>(), *g = grad.as<float>();
    if (m.values.dtype == DType::F32 && v.values.dtype == DType::F32) {
      float *first = m.values.as<float>(), *second = v.values.as<float>();
      return parallel_for(param.shape.numel(), 16384, [&](Index begin, Index end) {
        kernels_.adamw(p + begin, g + begin, first + begin, second + begin, end - begin, factors);
      });
    }
    step_blocks(kernels_, param.shape.numel(), {{m, true}, {v, false}}, options.step, options.draws,
                [&](Index begin, Index n, float* const* states) {
                  kernels_.adamw(p + begin, g + begin, states[0], states[1], n, factors);
                });
  }
  void lion(const ExecContext&, const TensorView& param, const TensorView& grad, const OptimizerState& m,
            const Lion& options) const override {
    const LionFactors factors{.lr = options.lr,
                              .beta1 = options.beta1,
                              .beta2 = options.beta2,
                              .decay = 1.0f - options.lr * options.weight_decay,
                              .grad_scale = options.grad_scale};
    step_blocks(kernels_, param.shape.numel(), {{m, true}}, options.step, options.draws,
                [&](Index begin, Index n, float* const* states) {
                  kernels_.lion(param.as<float>() + begin, grad.as<float>() + begin, states[0], n, factors);
                });
  }

  void row_dots(const ExecContext&, const TensorView& a, const TensorView& b, std::span<double> out) const override {
    for_rows(a.rows(), a.cols(), [&](Index begin, Index end) {
      for (Index r = begin; r < end; ++r)
        out[static_cast<std::size_t>(r)] =
            kernels_.dot(a.as<float>() + r * a.row_stride, b.as<float>() + r * b.row_stride, a.cols());
    });
  }

  double sum_of_squares(const ExecContext& ctx, const TensorView& x) const override;

  const Backend& dry() const override { return dry_; }

 private:
  static std::size_t row_bytes(const TensorView& x) { return static_cast<std::size_t>(x.cols()) * dtype_size(x.dtype); }

  void merge(const TensorView& base, const LoraView& lora, const TensorView& out, Index begin, Index end) const {
    merge_rows(kernels_, base, lora, begin, end - begin, rows_of(out, begin));
  }

  /// Adds the sum of rows to `total` [cols]: blocks of 64 rows are summed each on its own, then in order, so that the result
  /// does not depend on threads. `add_row(row, mine)` adds one to a block's sum.
  template <typename AddRow>
  void add_block_sums(const ExecContext& ctx, Index rows, const TensorView& total, AddRow&& add_row) const;

  Isa isa_;
  const Kernels& kernels_;
  DryBackend dry_{*this};
};

template <typename AddRow>
void CpuBackend::add_block_sums(const ExecContext& ctx, Index rows, const TensorView& total, AddRow&& add_row) const {
  constexpr Index kBlock = 64;
  const Index blocks = (rows + kBlock - 1) / kBlock, cols = total.shape.numel();
  const ArenaScope scope(workspace(ctx, "sums of columns"));
  float* partial = ctx.workspace->allocate(DType::F32, Shape{blocks, cols}).as<float>();
  if (is_dry(ctx)) return;
  run_tasks(blocks, [&](Index block, int) {
    float* mine = partial + block * cols;
    std::memset(mine, 0, static_cast<std::size_t>(cols) * sizeof(float));
    for (Index row = block * kBlock; row < std::min((block + 1) * kBlock, rows); ++row) add_row(row, mine);
  });
  const Rows sum = rows_of(total);
  for (Index block = 0; block < blocks; ++block)
    kernels_.add(sum, Rows{partial + block * cols, cols, Elem::F32}, sum, 1, cols);
}

/// Tiles of rows of a merged matrix, in F32 or BF16 as codecs take them, one at a time for each worker. f16 storage is
/// rounded first, then widened exactly.
class MergedTiles {
 public:
  MergedTiles(const ExecContext& ctx, const Kernels& kernels, const TensorView& base, const LoraView* lora, DType storage)
      : kernels_(kernels), base_(base), lora_(lora), rows_(base.rows()), cols_(base.cols()) {
    constexpr Index kTileElements = 64 * 1024;
    base_.shape = Shape{rows_, cols_};
    tile_ = std::clamp<Index>(kTileElements / cols_, 1, rows_);
    merged_ = ctx.workspace->allocate(storage, Shape{workers() * tile_, cols_});
    wide_ = storage == DType::F16 ? ctx.workspace->allocate(DType::F32, merged_.shape) : merged_;
  }

  Index count() const { return (rows_ + tile_ - 1) / tile_; }
  Index workers() const { return task_workers(count()); }
  Index rows() const { return tile_; }  ///< Of all tiles but the last.
  Index begin(Index tile) const { return tile * tile_; }
  Index rows_in(Index tile) const { return std::min(rows_ - begin(tile), tile_); }

  /// Throws Diverged where a value is not finite.
  TensorView merge(Index tile, int worker) const {
    const Index first = begin(tile), n = rows_in(tile);
    const TensorView merged = merged_.slice_rows(worker * tile_, worker * tile_ + n);
    if (lora_)
      merge_rows(kernels_, base_, *lora_, first, n, rows_of(merged));
    else
      kernels_.convert(rows_of(base_, first), rows_of(merged), n, cols_);
    if (!kernels_.all_finite(rows_of(merged), n, cols_))
      throw Diverged("rows {} to {} of a merged {} weight hold a NaN or an infinity; lower the learning rate", first,
                     first + n - 1, base_.shape.str());
    if (wide_.data == merged_.data) return merged;
    const TensorView wide = wide_.slice_rows(worker * tile_, worker * tile_ + n);
    kernels_.convert(rows_of(merged), rows_of(wide), n, cols_);
    return wide;
  }

 private:
  const Kernels& kernels_;
  TensorView base_, merged_, wide_;
  const LoraView* lora_;
  Index rows_, cols_, tile_ = 1;
};

/// A tile of rows is merged, checked and encoded while it lies in the cache. Where rows share parameters, tiles are merged
/// twice: to fit all rows, and, those joined, to round them.
void CpuBackend::merge_and_encode(const ExecContext& ctx, const TensorView& base, const LoraView* lora, DType storage,
                                  const quant::Codec& codec, std::span<std::byte> encoded, quant::CodeStats* stats,
                                  Parameters parameters, std::span<const float> factors) const {
  const Index rows = base.rows(), cols = base.cols();
  const ArenaScope scope(workspace(ctx, "merge_and_encode"));
  Arena& arena = *ctx.workspace;
  const MergedTiles tiles(ctx, kernels_, base, lora, storage);
  const std::size_t row_bytes = codec.row_bytes(cols);
  const Index row_params = parameters == Parameters::Fit && codec.joins_rows() ? codec.params_per_row(cols) : 0;
  std::span<float> params;
  if (row_params > 0) params = arena.allocate(DType::F32, Shape{rows, row_params}).span<float>();
  const TensorView earlier_all =
      stats ? arena.allocate(DType::U8, Shape{tiles.workers() * tiles.rows(), static_cast<Index>(row_bytes)}) : TensorView();
  if (is_dry(ctx)) return;
  if (row_params > 0) {
    run_tasks(tiles.count(), [&](Index tile, int worker) {
      codec.fit_rows(tiles.merge(tile, worker),
                     params.subspan(tiles.begin(tile) * row_params, tiles.rows_in(tile) * row_params));
    });
    codec.join(params, rows, cols);
  }
  const Index groups = factors.empty() ? 0 : codec.groups(cols);
  std::mutex stats_mutex;
  run_tasks(tiles.count(), [&](Index tile, int worker) {
    const Index begin = tiles.begin(tile), count = tiles.rows_in(tile);
    const TensorView merged = tiles.merge(tile, worker);
    const auto out =
        encoded.subspan(static_cast<std::size_t>(begin) * row_bytes, static_cast<std::size_t>(count) * row_bytes);
    std::span<std::byte> earlier;
    if (stats) {
      earlier = std::as_writable_bytes(earlier_all.span<std::uint8_t>())
                    .subspan(static_cast<std::size_t>(worker * tiles.rows()) * row_bytes, out.size());
      std::ranges::copy(out, earlier.begin());
    }
    if (parameters == Parameters::Kept)
      codec.reround_rows(merged, out);
    else if (groups > 0)
      quant::encode_with_factors(codec, merged, factors.subspan(begin * groups, count * groups), out);
    else if (row_params > 0)
      codec.round_rows(merged, params.subspan(begin * row_params, count * row_params), out);
    else
      codec.encode_rows(merged, out);
    if (!stats) return;
    const quant::CodeStats counted = codec.stats(out, earlier, count, cols);
    const std::lock_guard lock(stats_mutex);
    *stats += counted;
  });
}

void CpuBackend::factor_gradients(const ExecContext& ctx, const LearntScales& scales, const TensorView& dw,
                                  std::span<float> grads) const {
  const ArenaScope scope(workspace(ctx, "factor_gradients"));
  const MergedTiles tiles(ctx, kernels_, scales.base, scales.lora, scales.storage);
  const quant::EncodedView& encoded = scales.encoded;
  const Index groups = encoded.codec->groups(encoded.cols);
  if (is_dry(ctx)) return;
  run_tasks(tiles.count(), [&](Index tile, int worker) {
    const Index begin = tiles.begin(tile), end = begin + tiles.rows_in(tile);
    const auto at = [&](auto values) { return values.subspan(begin * groups, (end - begin) * groups); };
    quant::factor_gradients(*encoded.codec, tiles.merge(tile, worker), encoded.row_range(begin, end),
                            matrix(dw).slice_rows(begin, end), at(scales.factors), at(grads));
  });
}

/// Blocks of 16 rows are summed each on its own, then in order.
quant::RangeGradient CpuBackend::clip_backward(const ExecContext& ctx, const TensorView& x,
                                               const quant::InputFormat& rounding, const TensorView& grad) const {
  constexpr Index kBlock = 16;
  const Index rows = x.rows(), blocks = (rows + kBlock - 1) / kBlock;
  const ArenaScope scope(workspace(ctx, "clip_backward"));
  double* partial = ctx.workspace->allocate(DType::F64, Shape{blocks * 2}).as<double>();
  if (is_dry(ctx)) return {};
  run_tasks(blocks, [&](Index block, int) {
    const Index begin = block * kBlock, end = std::min(rows, begin + kBlock);
    const quant::RangeGradient sum =
        quant::clip_backward(rounding, matrix(x).slice_rows(begin, end), matrix(grad).slice_rows(begin, end));
    partial[2 * block] = sum.scale;
    partial[2 * block + 1] = sum.zero;
  });
  quant::RangeGradient total;
  for (Index block = 0; block < blocks; ++block) {
    total.scale += partial[2 * block];
    total.zero += partial[2 * block + 1];
  }
  return total;
}

/// Blocks of 64 Ki elements of a row, summed in order.
double CpuBackend::sum_of_squares(const ExecContext& ctx, const TensorView& x) const {
  constexpr Index kBlock = 65536;
  // Contiguous elements are one long row, so that the order depends on the size alone.
  const Index rows = x.contiguous() ? 1 : x.rows(), cols = x.contiguous() ? x.shape.numel() : x.cols();
  const Index per_row = (cols + kBlock - 1) / kBlock;
  const ArenaScope scope(workspace(ctx, "sum_of_squares"));
  double* partial = ctx.workspace->allocate(DType::F64, Shape{rows * per_row}).as<double>();
  if (is_dry(ctx)) return 0.0;
  parallel_for(rows * per_row, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Index row = i / per_row, first = i % per_row * kBlock;
      const float* values = x.as<float>() + row * x.row_stride + first;
      partial[i] = kernels_.dot(values, values, std::min(kBlock, cols - first));
    }
  });
  double total = 0.0;
  for (Index i = 0; i < rows * per_row; ++i) total += partial[i];
  return total;
}

}  // namespace
}  // namespace cpu

const Backend& cpu_backend(Isa isa) {
  if (isa > detected_isa()) throw Unsupported("this CPU has no {}: {} at most", isa_name(isa), isa_name(detected_isa()));
  static const cpu::CpuBackend backends[] = {cpu::CpuBackend(Isa::Generic), cpu::CpuBackend(Isa::Avx2),
                                             cpu::CpuBackend(Isa::Avx512), cpu::CpuBackend(Isa::Avx512Bf16),
                                             cpu::CpuBackend(Isa::Amx)};
  return backends[static_cast<std::size_t>(isa)];
}

const Backend& cpu_backend() { return cpu_backend(active_isa()); }

}  // namespace temper::ops
