// The training loop: a recipe becomes a run folder.
//
//   RUN/recipe.yaml     what is trained, with absolute paths; RUN itself may be moved
//   RUN/log.jsonl       one line a step
//   RUN/checkpoints/    see checkpoint.h
//   RUN/start/          adapter that the base was rounded less, where it was (lora_init.h); written before the first step
//   RUN/adapter/        peft layout, F32 masters; written when the run ends; or, where every weight was trained,
//   RUN/weights.safetensors   model/trained_weights.h; the same
//   RUN/run.json        eval/run_info.h; written last: a folder with it is a finished run
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "eval/run_info.h"
#include "recipe/recipe.h"
#include "tensor/exec_context.h"
#include "text/dataset.h"
#include "train/memory_plan.h"
#include "train/qat.h"

namespace temper::train {

/// A part of the loss, or what tells how it goes: a key of log.jsonl.
struct Figure {
  std::string name;
  double value = 0;
};

/// Mean negative log-likelihood of the held-out answers (of pairs, the chosen ones).
struct HeldOut {
  std::int64_t step = 0;    ///< Optimizer steps done when it was measured.
  double nll = 0;           ///< Nats per labelled token.
  std::int64_t tokens = 0;  ///< Labelled tokens scored.
  std::int64_t rows = 0;
  std::vector<Figure> figures = {};  ///< Of the objective, beside it; not kept in checkpoints.
};

/// A line of log.jsonl.
struct StepLog {
  std::int64_t step = 0;  ///< Counted from 1.
  double loss = 0;        ///< Of the objective; Σ NLL / labelled tokens of the step, unless it says otherwise.
  double lr = 0;
  double grad_norm = 0;     ///< Before clipping.
  std::int64_t tokens = 0;  ///< Tokens of this step, labelled or not.
  double tokens_per_second = 0;
  CodeShares shares = {};
  double seconds = 0;                    ///< Of this step.
  std::vector<Figure> figures = {};      ///< Parts of the loss.
  std::optional<HeldOut> held_out = {};  ///< Where this step was followed by an evaluation.
};

/// What a caller may watch. A hook that throws ends the run as any error does.
struct Hooks {
  std::function<void(const StepLog&)> on_step;
};

struct TrainResult {
  std::filesystem::path run;
  eval::RunInfo info;
  double last_loss = 0;
  std::optional<HeldOut> held_out;     ///< At the end, where there are held-out rows.
  std::int64_t tokens = 0;             ///< Processed over the whole run.
  double tokens_per_second = 0;        ///< Over the whole run's steps, without evaluation.
  std::int64_t peak_memory_bytes = 0;  ///< Of this process since train() was called: its largest resident set.
  MemoryPlan plan;                     ///< What that was to be.
  std::optional<RunPlan> run_plan;     ///< With train.plan; but for `plan`, nothing else is set.
};

/// Rows to learn from and to score, as token ids; of preferences, samples 2i are chosen and 2i + 1 rejected.
struct TrainData {
  std::vector<text::Sample> train, held_out;
};

/// Trains as `recipe` (resolved for Verb::Train) says and writes the run's folder, recipe.out. With recipe.train.resume,
/// goes on from the newest whole checkpoint of that run, or from its beginning if it was killed before the first; the
/// adapter (or the weights) at the end is, bit for bit, the one that an uninterrupted run gives.
///
/// Throws
///   BadRecipe    a finished or unfinished run already stands at recipe.out; an option that a resumed run cannot change
///   differs (each is
///                named); a scheme's group does not divide a row; adapter rank 0
///   Unsupported  adapter dropout
///   Diverged     loss or gradient NaN or infinite, naming step and tensor; the last good checkpoint is kept
///   Interrupted  Ctrl-C: a checkpoint was saved, the message says how to go on
///   BadFile, BadData, IoError
TrainResult train(const ExecContext& ctx, const recipe::Recipe& recipe, const Hooks& hooks = {});

/// The same on rows that are already token ids; recipe.data's paths and format are not read.
TrainResult train(const ExecContext& ctx, const recipe::Recipe& recipe, const TrainData& data, const Hooks& hooks = {});

}  // namespace temper::train
