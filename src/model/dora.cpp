// Magnitudes of weight-decomposed adapters: DoRA (Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", section
// 4.3: norms are constants to the gradient).
#include <cmath>
#include <vector>

#include "model/adapters.h"
#include "model/weights.h"

namespace temper::model {

template <typename Visit>
void Adapters::visit_merged(const ExecContext& ctx, const Entry& entry, Visit&& visit) const {
  constexpr std::int64_t kTile = 256;
  const ArenaScope scope(*ctx.workspace);
  const TensorView base = base_->values(ctx, entry.tensor, base_->storage());
  const std::int64_t rows = base.rows();
  const TensorView tile = ctx.workspace->allocate(DType::F32, {std::min(kTile, rows), base.cols()});
  for (std::int64_t first = 0; first < rows; first += kTile) {
    const std::int64_t end = std::min(first + kTile, rows);
    const TensorView merged = tile.slice_rows(0, end - first);
    ops::merge_lora(ctx, base.slice_rows(first, end), {entry.a, entry.b.slice_rows(first, end), entry.scale}, merged);
    visit(first, merged);
  }
}

void Adapters::prepare_gains(const ExecContext& ctx) {
  for (const Entry& entry : entries_) {
    visit_merged(ctx, entry, [&](std::int64_t first, const TensorView& merged) {
      std::vector<double> squares(static_cast<std::size_t>(merged.rows()), 0.0);
      ops::row_dots(ctx, merged, merged, squares);
      if (ctx.workspace->dry()) return;
      for (std::size_t i = 0; i < squares.size(); ++i) {
        const std::size_t row = static_cast<std::size_t>(first) + i;
        const float norm = static_cast<float>(std::sqrt(squares[i]));
        entry.norm.as<float>()[row] = norm;
        entry.gain.as<float>()[row] = norm > 0 ? entry.magnitude.as<float>()[row] / norm : 0.0f;  // a row of zeros stays one
      }
    });
  }
}

void Adapters::init_magnitudes(const ExecContext& ctx, const BaseWeights& base) {
  if (!config_.dora) return;
  prepare(ctx, base);
  for (const Entry& entry : entries_)
    for (std::int64_t row = 0; row < entry.norm.rows(); ++row)
      entry.magnitude.as<float>()[row] = entry.norm.as<float>()[row];
}

void Adapters::add_magnitude_gradient(const ExecContext& ctx, const Entry& entry, const TensorView& x,
                                      const TensorView& dy) const {
  if (!entry.magnitude) return;
  visit_merged(ctx, entry, [&](std::int64_t first, const TensorView& merged) {
    const ArenaScope scope(*ctx.workspace);
    const std::int64_t end = first + merged.rows();
    const TensorView dw = ctx.workspace->allocate(DType::F32, merged.shape);
    ops::matmul(ctx, dy.slice_cols(first, end), x, dw, {.transpose_a = true});
    std::vector<double> dots(static_cast<std::size_t>(merged.rows()), 0.0);
    ops::row_dots(ctx, dw, merged, dots);
    for (std::size_t i = 0; i < dots.size(); ++i) {
      const std::size_t row = static_cast<std::size_t>(first) + i;
      const float norm = entry.norm.as<float>()[row];
      if (norm > 0) entry.grad_magnitude.as<float>()[row] += static_cast<float>(dots[i] / static_cast<double>(norm));
    }
  });
}

}  // namespace temper::model
