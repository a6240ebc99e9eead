// Rules of a run's folder.
#include "train/run_folder.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "temporary_folder.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using testing::slurp;
using testing::spill;

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const BadRecipe& error) {
    return error.what();
  }
  return "";
}

recipe::Recipe example() {
  recipe::Recipe r;
  r.model.path = "/models/m";
  r.data.path = "/data/train.jsonl";
  r.out = "run";
  r.train.steps = 60;
  return r;
}

TEST(RunFolder, FinishedAndUnfinishedRunsAreNotOverwritten) {
  testing::TemporaryFolder folder;
  EXPECT_NO_THROW(require_free(folder / "new"));
  EXPECT_NO_THROW(require_free(folder.path()));
  spill(folder / "file", "");
  EXPECT_NE(message_of([&] { require_free(folder / "file"); }).find("is a file"), std::string::npos);
  fs::create_directories(folder / "finished");
  eval::write_run_info(eval::RunInfo{}, folder / "finished");
  EXPECT_NE(message_of([&] { require_free(folder / "finished"); }).find("finished run"), std::string::npos);
  fs::create_directories(folder / "unfinished" / "checkpoints" / "step-20");
  const std::string said = message_of([&] { require_free(folder / "unfinished"); });
  EXPECT_NE(said.find("20 steps"), std::string::npos) << said;
  EXPECT_NE(said.find("--resume"), std::string::npos) << said;
}

TEST(RunFolder, TheStoredRecipeCanBeMoved) {
  recipe::Recipe r = example();
  r.model.path = "relative/model";
  r.train.resume = "run";
  const recipe::Recipe stored = stored_form(r);
  EXPECT_TRUE(stored.out.empty());
  EXPECT_TRUE(stored.train.resume.empty());
  EXPECT_TRUE(fs::path(stored.model.path).is_absolute());
  EXPECT_TRUE(stored.data.eval_path.empty());
}

TEST(RunFolder, AResumedRunNamesEveryOptionItCannotChange) {
  const recipe::Recipe stored = stored_form(example());
  recipe::Recipe asked = example();
  asked.train.resume = "run";
  asked.train.checkpoint_every = 7;
  asked.train.recompute = recipe::Recompute::None;
  asked.runtime.threads = 1;
  const recipe::Recipe resumed = resumed_recipe(asked, stored);
  EXPECT_EQ(resumed.train.checkpoint_every, 7);
  EXPECT_EQ(resumed.runtime.threads, 1);

  asked.optim.lr = 1e-3;
  asked.quant.scheme = "q4_0";
  asked.lora.r = 8;
  const std::string said = message_of([&] { resumed_recipe(asked, stored); });
  for (const char* key : {"optim.lr", "quant.scheme", "lora.r"}) EXPECT_NE(said.find(key), std::string::npos) << said;
  EXPECT_EQ(said.find("checkpoint_every"), std::string::npos) << said;
  EXPECT_EQ(said.find("runtime.threads"), std::string::npos) << said;
}

TEST(RunFolder, AskingForNothingTakesTheStoredRecipe) {
  recipe::Recipe stored = stored_form(example());
  stored.optim.lr = 1e-3;
  recipe::Recipe asked;
  asked.train.resume = "run";
  EXPECT_TRUE(recipe::equal(resumed_recipe(asked, stored), stored));
}

TEST(RunFolder, HalfWrittenFilesAreRemoved) {
  testing::TemporaryFolder folder;
  fs::create_directories(folder / "adapter");
  const fs::path mine = folder / "recipe.yaml.partial.123",
                 its = folder.path() / "adapter" / "adapter_config.json.partial.9", whole = folder / "recipe.yaml",
                 foreign = folder / "notes.partial.txt";
  for (const fs::path& path : {mine, its, whole, foreign}) spill(path, "x");
  remove_partial_files(folder.path());
  EXPECT_FALSE(fs::exists(mine));
  EXPECT_FALSE(fs::exists(its));
  EXPECT_TRUE(fs::exists(whole));
  EXPECT_TRUE(fs::exists(foreign));
}

TEST(RunFolder, TheLogForgetsAnAbandonedFuture) {
  testing::TemporaryFolder folder;
  {
    RunLog log(folder.path(), 0);
    for (std::int64_t step = 1; step <= 5; ++step) log.write({.step = step, .loss = 1.5});
  }
  spill(folder / "log.jsonl", slurp(folder / "log.jsonl") + "{\"step\": 6, \"lo");  // killed while writing
  RunLog log(folder.path(), 3);
  StepLog line{
      .step = 4, .loss = 0.25, .lr = 1e-3, .grad_norm = 2, .tokens = 10, .tokens_per_second = 5, .shares = {0.5, 0.25}};
  line.held_out = HeldOut{.step = 4, .nll = 0.75, .tokens = 99, .rows = 3};
  log.write(line);
  std::istringstream text(slurp(folder / "log.jsonl"));
  std::vector<nlohmann::json> lines;
  for (std::string row; std::getline(text, row);) lines.push_back(nlohmann::json::parse(row));
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[2]["step"], 3);
  EXPECT_EQ(lines[3]["loss"], 0.25);
  EXPECT_EQ(lines[3]["changed"], 0.5);
  EXPECT_EQ(lines[3]["saturated"], 0.25);
  EXPECT_EQ(lines[3]["eval_nll"], 0.75);
  EXPECT_FALSE(lines[2].contains("eval_nll"));
}

}  // namespace
}  // namespace temper::train
