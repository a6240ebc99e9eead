// A context on the CPU backend, and a recipe for a tiny model, for tests of training.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/interrupt.h"
#include "ops/cpu/cpu_backend.h"
#include "random_model.h"
#include "recipe/recipe.h"
#include "temporary_folder.h"
#include "train/loop.h"

namespace temper::testing {

struct CpuContext {
  Arena arena{std::size_t{1} << 30};
  ExecContext ctx;
  explicit CpuContext(DType compute = DType::F32) : ctx{&ops::cpu_backend(), &arena, compute} {}
};

/// A tiny model on the disk, rows for it, and a recipe that trains it for a few steps.
struct TinyRun {
  TemporaryFolder folder;
  train::TrainData data;
  recipe::Recipe recipe;

  explicit TinyRun(const RandomModel& model = {}, const std::string& scheme = "none") {
    write_random_model(folder / "model", model);
    data.train = counting_samples(40, model.vocab, 11);
    data.held_out = counting_samples(8, model.vocab, 12);
    recipe.model.path = (folder / "model").string();
    recipe.data.path = "rows.jsonl";
    recipe.data.seq_len = 64;
    recipe.lora.r = 4;
    recipe.lora.alpha = 8;
    recipe.quant.scheme = scheme;
    recipe.train.steps = 8;
    recipe.train.batch_size = 3;
    recipe.train.seed = 5;
    recipe.optim.lr = 1e-2;
    recipe.optim.warmup_steps = 2;
    recipe.out = (folder / "run").string();
  }

  /// The same to another folder of this test.
  recipe::Recipe to(const std::string& name) const {
    recipe::Recipe other = recipe;
    other.out = (folder / name).string();
    return other;
  }
  /// Goes on with the run in that folder.
  recipe::Recipe resuming(const std::string& name) const {
    recipe::Recipe other = to(name);
    other.train.resume = other.out;
    return other;
  }
  /// What a run trained, as its folder has it.
  std::string trained(const std::string& name) const {
    const bool full = recipe.train.mode == recipe::TrainMode::Full;
    return full ? slurp(folder.path() / name / "weights.safetensors") : adapter(name);
  }
  std::string adapter(const std::string& name) const {
    return slurp(folder.path() / name / "adapter" / "adapter_model.safetensors");
  }
};

/// The lines of a run's log.
inline std::vector<nlohmann::json> log_of(const std::filesystem::path& run) {
  std::istringstream text(slurp(run / "log.jsonl"));
  std::vector<nlohmann::json> lines;
  for (std::string row; std::getline(text, row);) lines.push_back(nlohmann::json::parse(row));
  return lines;
}

/// A run to that folder that is interrupted after a step.
inline void train_until(ExecContext& ctx, const TinyRun& tiny, const std::string& name, std::int64_t stop) {
  train::Hooks hooks;
  hooks.on_step = [&](const train::StepLog& line) {
    if (line.step == stop) set_interrupted(true);
  };
  EXPECT_THROW(train::train(ctx, tiny.to(name), tiny.data, hooks), Interrupted);
  set_interrupted(false);
}

/// The same, and to the end from there.
inline train::TrainResult stop_and_resume(ExecContext& ctx, const TinyRun& tiny, const std::string& name,
                                          std::int64_t stop) {
  train_until(ctx, tiny, name, stop);
  return train::train(ctx, tiny.resuming(name), tiny.data);
}

}  // namespace temper::testing
