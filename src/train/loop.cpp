#include "train/loop.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/resident_memory.h"
#include "eval/evaluate.h"
#include "model/base_format.h"
#include "model/file_scheme.h"
#include "text/tokenizer.h"
#include "train/first_adapter.h"
#include "train/session.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;

/// What a run starts from: its recipe, and the checkpoint to go on with.
struct Start {
  recipe::Recipe recipe;
  std::optional<LoadedCheckpoint> checkpoint;
};

Start resume_from(const recipe::Recipe& asked) {
  const fs::path run = asked.train.resume;
  if (!fs::is_directory(run)) throw BadFile("train.resume: {} is no folder of a run", run.string());
  Start start;
  start.checkpoint = CheckpointStore(run / kCheckpointFolder, asked.train.keep_checkpoints).load_newest();
  recipe::Recipe stored;
  if (start.checkpoint) {
    const fs::path origin = start.checkpoint->folder / recipe::kRecipeFileName;
    recipe::parse_yaml(start.checkpoint->state.recipe_yaml, origin.string(), stored);
    log_info("going on from {}", start.checkpoint->folder.string());
  } else {
    if (eval::is_run(run))
      throw BadFile("{}: the run is finished, and its checkpoints are gone: nothing to go on from", run.string());
    recipe::load_yaml(run / recipe::kRecipeFileName, stored);
    log_info("{}: no checkpoint yet; the run begins anew", run.string());
  }
  start.recipe = resumed_recipe(asked, stored);
  start.recipe.out = run.string();
  return start;
}

/// quant.scheme "same" spelt out, with the codes of the file as the first ones.
recipe::Recipe with_scheme_of_file(recipe::Recipe recipe) {
  if (recipe.quant.scheme != model::kFileScheme) return recipe;
  if (recipe.train.mode == recipe::TrainMode::Full || recipe.model.base_format != model::kStoredFormat)
    throw BadRecipe(
        "quant.scheme same: trains adapters on a quantized file as it is; leave train.mode and "
        "model.base_format out");
  const auto reader = model::CheckpointReader::open(recipe.model.path);
  recipe.quant.scheme = quant::scheme(model::scheme_of_file(reader, recipe.lora.target_modules)).name;
  recipe.quant.init = recipe::QuantInit::Base;
  return recipe;
}

Start start_of(const recipe::Recipe& asked) {
  const recipe::Recipe recipe = with_scheme_of_file(with_adapter_config(asked));
  if (!recipe.train.resume.empty()) return resume_from(recipe);
  if (!recipe.train.plan) require_free(recipe.out);
  return {recipe, std::nullopt};
}

std::vector<text::Sample> load_samples(const std::string& path, recipe::DataOptions data, const text::Tokenizer& tokenizer,
                                       std::int64_t max_rows, bool pairs) {
  status(fmt::format("reading {}", path));
  data.seq_len = 0;  // whole rows: packing cuts them
  text::Dataset dataset = eval::load_rows(path, data, tokenizer, max_rows, pairs);
  log_info("{}", dataset.report.text());
  return std::move(dataset.samples);
}

TrainData load_data(const recipe::Recipe& recipe) {
  const text::Tokenizer tokenizer = text::Tokenizer::load(recipe.model.path);
  const bool pairs = recipe.train.objective == recipe::ObjectiveKind::Dpo;
  TrainData data;
  data.train = load_samples(recipe.data.path, recipe.data, tokenizer, recipe.data.max_rows, pairs);
  if (!recipe.data.eval_path.empty())
    data.held_out = load_samples(recipe.data.eval_path, recipe.data, tokenizer, recipe.train.eval_rows, pairs);
  return data;
}

TrainResult run(const ExecContext& ctx, const Start& start, const TrainData& data, const Hooks& hooks) {
  status(fmt::format("opening {}", start.recipe.model.path));
  Session session(ctx, start.recipe, data, hooks, start.checkpoint);
  return start.recipe.train.plan ? session.only_plan() : session.run();
}

}  // namespace

TrainResult train(const ExecContext& ctx, const recipe::Recipe& recipe, const Hooks& hooks) {
  reset_peak_resident();
  const Start start = start_of(recipe);
  return run(ctx, start, load_data(start.recipe), hooks);
}

TrainResult train(const ExecContext& ctx, const recipe::Recipe& recipe, const TrainData& data, const Hooks& hooks) {
  reset_peak_resident();
  return run(ctx, start_of(recipe), data, hooks);
}

}  // namespace temper::train
