// Rules of a run's folder: what may be overwritten, which options a resumed run may change, and its log.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "recipe/recipe.h"
#include "train/loop.h"

namespace temper::train {

inline constexpr const char* kCheckpointFolder = "checkpoints";
inline constexpr const char* kAdapterFolder = "adapter";
inline constexpr const char* kLogName = "log.jsonl";

/// Throws BadRecipe if a new run must not be written to `run`: a file, a finished run, or one with checkpoints stands there.
void require_free(const std::filesystem::path& run);

/// Removes the files that a killed process was writing aside (base/atomic_file.h) in a run's folder and its
/// adapters'.
void remove_partial_files(const std::filesystem::path& run);

/// The recipe as a run's folder keeps it: paths absolute; `out` and `train.resume` empty, so that the folder may be moved.
recipe::Recipe stored_form(recipe::Recipe recipe);

/// The recipe with which a run goes on: `asked` where it differs in options that change neither data, model nor arithmetic
/// (how often to evaluate, threads, the length of the run, …), otherwise `stored`. Throws BadRecipe naming every other
/// option that differs, with both values. An `asked` that names no model asks for nothing but to go on.
recipe::Recipe resumed_recipe(const recipe::Recipe& asked, const recipe::Recipe& stored);

/// RUN/log.jsonl. Lines of steps after `steps_done` belong to a future that was abandoned, and are dropped, as is a line cut
/// short.
class RunLog {
 public:
  RunLog(const std::filesystem::path& run, std::int64_t steps_done);
  void write(const StepLog& line);

 private:
  std::filesystem::path path_;
  std::ofstream file_;
};

/// The line of a step, without a line break. Keys as StepLog's members; `changed` and `saturated` are 0 without codes;
/// figures under their names; `eval_nll` and `eval_tokens` only after an evaluation.
std::string log_line(const StepLog& line);

}  // namespace temper::train
