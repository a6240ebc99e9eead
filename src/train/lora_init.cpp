#include "train/lora_init.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "model/base_format.h"
#include "model/low_rank_approximation.h"
#include "model/peft.h"
#include "ops/ops.h"
#include "train/lora_options.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using Entry = model::Adapters::Entry;

std::uint64_t seed_of(const model::Adapters& adapters, const Entry& entry) { return adapters.seed() + entry.tensor; }

/// Sums of squares over matrices.
struct Squares {
  double weights = 0, lost = 0, held = 0;  ///< Of W, of W − base, and of what adapters hold of that.
};

/// s·B·A = the nearest to `matrix`, which becomes matrix / s; returns the sum of squares that it holds.
double decompose(const ExecContext& ctx, const TensorView& matrix, const Entry& entry, std::uint64_t seed) {
  std::ranges::fill(entry.b.span<float>(), 0.0f);  // of directions that the matrix does not have
  ops::scale(ctx, matrix, 1 / entry.scale);
  double held = 0;
  for (const double value : model::low_rank_approximation(ctx, matrix, entry.b, entry.a, seed))
    held += value * value * static_cast<double>(entry.scale * entry.scale);
  return held;
}

/// s·B·A = the nearest to W − base; `base` F32, which this changes.
void take_lost(const ExecContext& ctx, const model::CheckpointReader& original, const TensorView& base, const Entry& entry,
               std::uint64_t seed, Squares& squares) {
  const ArenaScope scope(*ctx.workspace);
  const TensorView lost = ctx.workspace->allocate(DType::F32, base.shape);
  original.read(entry.tensor, lost);
  original.release(entry.tensor);
  squares.weights += ops::sum_of_squares(ctx, lost);
  ops::scale(ctx, base, -1);
  ops::add(ctx, lost, base, lost);
  squares.lost += ops::sum_of_squares(ctx, lost);
  squares.held += decompose(ctx, lost, entry, seed);
}

void log_distance(std::string_view what, const Squares& squares) {
  const auto percent = [&](double left) {
    return squares.weights > 0 ? 100 * std::sqrt(std::max(0.0, left) / squares.weights) : 0.0;
  };
  log_info(
      "{}: the base is {:.3f} % away from the weights, base and adapters together {:.3f} % (relative, adapted matrices)",
      what, percent(squares.lost), percent(squares.lost - squares.held));
}

/// LoftQ's alternation of one matrix, but for its last iteration.
void alternate(const ExecContext& ctx, const model::CheckpointReader& original, const quant::Codec& codec,
               const Entry& entry, std::uint64_t seed, std::span<Squares> iterations) {
  const Shape& shape = original.table()[entry.tensor].shape;
  for (std::size_t i = 0; i < iterations.size(); ++i) {
    const model::HeldCodes codes = model::round_base(ctx, original, entry.tensor, codec, i == 0 ? nullptr : &entry);
    const ArenaScope scope(*ctx.workspace);
    const TensorView base = ctx.workspace->allocate(DType::F32, shape);
    ops::decode(ctx, {&codec, shape[0], shape[1], codes.bytes}, base);
    take_lost(ctx, original, base, entry, seed, iterations[i]);
  }
}

/// The largest components of a matrix.
void take_principal(const ExecContext& ctx, const model::CheckpointReader& original, const Entry& entry,
                    std::uint64_t seed) {
  const ArenaScope scope(*ctx.workspace);
  const TensorView weight = ctx.workspace->allocate(DType::F32, original.table()[entry.tensor].shape);
  original.read(entry.tensor, weight);
  original.release(entry.tensor);
  decompose(ctx, weight, entry, seed);
}

/// Nothing but A and B.
model::LoraConfig plain_config(const recipe::LoraOptions& lora) {
  model::LoraConfig config = lora_config(lora);
  config.dora = false;
  config.dropout = 0;
  config.bias = model::LoraBias::None;
  config.modules_to_save.clear();
  return config;
}

void write_start(const ExecContext& ctx, const recipe::Recipe& recipe, const fs::path& folder) {
  const auto original = model::CheckpointReader::open(recipe.model.path);
  const model::TensorTable& table = original.table();
  const bool pissa = recipe.lora.init == recipe::LoraInit::Pissa;
  const auto codecs = model::base_codecs(original, quant::scheme(recipe.model.base_format));
  model::Adapters start(table, plain_config(recipe.lora), static_cast<std::uint64_t>(recipe.train.seed));
  require_used_patterns(table, start);
  for (const Entry& entry : start.entries())
    if (pissa && !codecs[entry.tensor])
      throw BadRecipe(
          "lora.init pissa: model.base_format {} leaves {} in 16 bits, and the rest of its weights needs a format to be "
          "held "
          "in; give another format, or leave {} out of lora.target_modules",
          recipe.model.base_format, table[entry.tensor].hf_name, model::module_name(entry.linear));
  std::vector<Squares> iterations(static_cast<std::size_t>(recipe.lora.loftq_iterations - 1));
  Progress progress(pissa ? "PiSSA" : "LoftQ", static_cast<std::int64_t>(start.entries().size()));
  std::int64_t done = 0;
  for (const Entry& entry : start.entries()) {
    if (pissa)
      take_principal(ctx, original, entry, seed_of(start, entry));
    else if (codecs[entry.tensor])
      alternate(ctx, original, *codecs[entry.tensor], entry, seed_of(start, entry), iterations);
    progress.update(++done);
  }
  for (std::size_t i = 0; i < iterations.size(); ++i) log_distance(fmt::format("LoftQ, iteration {}", i + 1), iterations[i]);
  model::save_peft(start, table, {fs::absolute(recipe.model.path).lexically_normal().string()}, folder);
}

}  // namespace

model::CheckpointReader open_run_base(const ExecContext& ctx, const recipe::Recipe& recipe, bool resumed) {
  fs::path less;
  if (recipe.lora.base_is_residual() && (resumed || !recipe.train.plan)) {
    less = fs::path(recipe.out) / model::kStartFolder;
    if (!resumed) write_start(ctx, recipe, less);
  }
  return model::open_base(ctx, recipe.model.path, recipe.model.base_format, less);
}

void begin_with_lost(const ExecContext& ctx, const fs::path& model, const model::BaseWeights& base,
                     model::Adapters& adapters) {
  const auto original = model::CheckpointReader::open(model);
  Squares squares;
  Progress progress("LoftQ", static_cast<std::int64_t>(adapters.entries().size()));
  std::int64_t done = 0;
  for (const Entry& entry : adapters.entries()) {
    const ArenaScope scope(*ctx.workspace);
    const TensorView held = base.values(ctx, entry.tensor, DType::F32);
    const TensorView copy = ctx.workspace->allocate(DType::F32, held.shape);
    ops::convert(ctx, held, copy);
    take_lost(ctx, original, copy, entry, seed_of(adapters, entry), squares);
    progress.update(++done);
  }
  log_distance("LoftQ", squares);
}

void begin_with_principal(const fs::path& start, const model::TensorTable& table, model::Adapters& adapters) {
  const model::Adapters principal = model::load_peft(table, start);
  for (std::size_t e = 0; e < adapters.entries().size(); ++e) {
    std::ranges::copy(principal.entries()[e].a.span<const float>(), adapters.entries()[e].a.span<float>().begin());
    std::ranges::copy(principal.entries()[e].b.span<const float>(), adapters.entries()[e].b.span<float>().begin());
  }
}

}  // namespace temper::train
