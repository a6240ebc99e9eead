#include "train/run_folder.h"

#include <algorithm>
#include <array>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/log.h"
#include "files/json.h"
#include "model/base_format.h"
#include "model/kept_codes.h"
#include "model/static_ranges.h"
#include "model/trained_weights.h"
#include "recipe/options.h"
#include "train/checkpoint.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using files::Json;

// Options that a resumed run may change. Paths of model and data are here because their contents are compared instead; that
// of the first adapter, because a checkpoint has taken its place.
constexpr std::array<std::string_view, 16> kFree = {"out",
                                                    "model.path",
                                                    "lora.adapter",
                                                    "lora.adapter_any_base",
                                                    "data.path",
                                                    "data.eval_path",
                                                    "train.resume",
                                                    "train.eval_every",
                                                    "train.eval_rows",
                                                    "train.log_every",
                                                    "train.checkpoint_every",
                                                    "train.keep_checkpoints",
                                                    "train.recompute",
                                                    "train.profile",
                                                    "train.plan",
                                                    "data.max_rows"};
// The length of the run may change too, but then it is no longer the run that was begun, which a warning says.
constexpr std::array<std::string_view, 2> kLength = {"train.steps", "train.epochs"};

bool matters(const recipe::Option& option) {
  return recipe::takes(option, recipe::Verb::Train) && recipe::group_of(option) != "runtime" &&
         std::ranges::find(kFree, option.key) == kFree.end() && std::ranges::find(kLength, option.key) == kLength.end();
}

std::string absolute(const std::string& path) {
  return path.empty() ? path : fs::absolute(path).lexically_normal().string();
}

}  // namespace

void require_free(const fs::path& run) {
  if (fs::exists(run) && !fs::is_directory(run)) throw BadRecipe("out: {} is a file; give a folder", run.string());
  if (eval::is_run(run))
    throw BadRecipe("out: {} holds a finished run, which is not overwritten; give another folder, or remove it",
                    run.string());
  const auto steps = CheckpointStore(run / kCheckpointFolder, 1).steps();
  if (!steps.empty())
    throw BadRecipe(
        "out: {} holds an unfinished run of {} steps; go on with `temper train --resume {}`, or give another folder",
        run.string(), steps.back(), run.string());
}

void remove_partial_files(const fs::path& run) {
  constexpr std::array<std::string_view, 8> kWritten = {
      model::kTrainedWeightsName,  recipe::kRecipeFileName, kLogName,          "run.json", model::kKeptCodesName,
      "adapter_model.safetensors", "adapter_config.json",   model::kRangesName};
  std::vector<fs::path> leftovers;
  for (const fs::path& folder : {run, run / kAdapterFolder, run / model::kStartFolder}) {
    std::error_code missing;
    for (const auto& entry : fs::directory_iterator(folder, missing)) {
      const std::string name = entry.path().filename().string();
      for (const std::string_view file : kWritten)
        if (name.starts_with(fmt::format("{}.partial.", file))) leftovers.push_back(entry.path());
    }
  }
  for (const fs::path& path : leftovers) {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
}

recipe::Recipe stored_form(recipe::Recipe recipe) {
  recipe.out.clear();
  recipe.train.resume.clear();
  for (std::string* path : {&recipe.model.path, &recipe.data.path, &recipe.data.eval_path, &recipe.lora.adapter,
                            &recipe.distill.teacher, &recipe.distill.cache, &recipe.dpo.reference})
    *path = absolute(*path);
  return recipe;
}

recipe::Recipe resumed_recipe(const recipe::Recipe& asked, const recipe::Recipe& stored) {
  if (asked.model.path.empty()) return stored;
  const recipe::Recipe wanted = stored_form(asked);
  std::string refused;
  for (const recipe::Option& option : recipe::options()) {
    const std::string before = recipe::value_text(option, stored), now = recipe::value_text(option, wanted);
    if (before == now) continue;
    if (matters(option))
      refused += fmt::format("\n  {}: the run has {}, asked for {}", option.key, before, now);
    else if (std::ranges::find(kLength, option.key) != kLength.end())
      log_warning(
          "{} changes from {} to {}: the learning rate follows the new length from here on, which is not what a run of that "
          "length from its start would have done",
          option.key, before, now);
  }
  if (!refused.empty())
    throw BadRecipe(
        "a resumed run goes on with its own recipe; these options differ:{}\nleave them out, or start a new run in "
        "another folder",
        refused);
  return wanted;
}

std::string log_line(const StepLog& line) {
  Json json = {{"step", line.step},
               {"loss", line.loss},
               {"lr", line.lr},
               {"grad_norm", line.grad_norm},
               {"tokens", line.tokens},
               {"tokens_per_s", line.tokens_per_second},
               {"changed", line.shares.changed},
               {"saturated", line.shares.saturated},
               {"seconds", line.seconds}};
  for (const Figure& figure : line.figures) json[figure.name] = figure.value;
  if (line.held_out) {
    json["eval_nll"] = line.held_out->nll;
    json["eval_tokens"] = line.held_out->tokens;
  }
  return json.dump();
}

RunLog::RunLog(const fs::path& run, std::int64_t steps_done) : path_(run / kLogName) {
  std::string kept;
  if (steps_done > 0 && fs::exists(path_)) {
    const std::string text = read_file(path_);
    for (std::size_t begin = 0, end = 0; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
      const std::string line = text.substr(begin, end - begin);
      const Json json = Json::parse(line, nullptr, false);
      if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) continue;
      if (json["step"].get<std::int64_t>() <= steps_done) kept += line + "\n";
    }
  }
  write_file(path_, kept);
  file_.open(path_, std::ios::app);
}

void RunLog::write(const StepLog& line) {
  file_ << log_line(line) << '\n' << std::flush;
  if (!file_) throw IoError("{}: cannot write the log; is the disk full?", path_.string());
}

}  // namespace temper::train
