#include "train/loftq.h"

#include "base/log.h"
#include "base/progress.h"
#include "model/checkpoint_reader.h"
#include "model/low_rank_approximation.h"
#include "ops/ops.h"

namespace temper::train {

void begin_with_lost(const ExecContext& ctx, const std::filesystem::path& model, const model::BaseWeights& base,
                     model::Adapters& adapters) {
  const auto original = model::CheckpointReader::open(model);
  double lost = 0, held = 0;
  Progress progress("LoftQ", static_cast<std::int64_t>(adapters.entries().size()));
  std::int64_t done = 0;
  for (const model::Adapters::Entry& entry : adapters.entries()) {
    const ArenaScope scope(*ctx.workspace);
    const TensorView difference = ctx.workspace->allocate(DType::F32, original.table()[entry.tensor].shape);
    original.read(entry.tensor, difference);
    const TensorView rounded = base.values(ctx, entry.tensor, DType::F32);
    const TensorView negative = ctx.workspace->allocate(DType::F32, difference.shape);
    ops::convert(ctx, rounded, negative);
    ops::scale(ctx, negative, -1);
    ops::add(ctx, difference, negative, difference);
    original.release(entry.tensor);
    lost += ops::sum_of_squares(ctx, difference);
    ops::scale(ctx, difference, 1 / entry.scale);
    const std::uint64_t seed = adapters.seed() + entry.tensor;
    for (const double value : model::low_rank_approximation(ctx, difference, entry.b, entry.a, seed))
      held += value * value * static_cast<double>(entry.scale * entry.scale);
    progress.update(++done);
  }
  log_info("LoftQ: adapters begin with {:.1f} % of what rounding the base lost, in squares",
           lost > 0 ? 100 * held / lost : 0);
}

}  // namespace temper::train
