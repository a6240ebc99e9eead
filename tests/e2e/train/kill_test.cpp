// A process that trains is killed with −9 at random moments, resumed, killed again, until it ends: with the adapter of a run
// that was left alone, bit for bit.
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <random>
#include <thread>

#include "train_fixture.h"

extern char** environ;

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using testing::CpuContext;
using testing::TinyRun;

constexpr const char* kVariable = "TEMPER_KILL_TEST_RUN";  // folder of the run that a child is to begin or go on with

recipe::Recipe long_recipe(const TinyRun& tiny) {
  recipe::Recipe recipe = tiny.recipe;
  recipe.train.steps = 60;
  recipe.train.checkpoint_every = 2;  // so that many kills fall into a save
  recipe.train.keep_checkpoints = 2;
  recipe.quant.scheme = "q4_0";
  recipe.quant.start_step = 10;
  return recipe;
}

/// What a child does: begins the run, or goes on with it where there is something to go on with.
void train_as_child(const char* run) {
  TinyRun tiny;
  recipe::Recipe recipe = long_recipe(tiny);
  recipe.out = run;
  if (fs::exists(fs::path(run) / recipe::kRecipeFileName)) recipe.train.resume = run;
  CpuContext cpu;
  train(cpu.ctx, recipe, tiny.data);
}

/// This very program again, with the variable set: it then runs `train_as_child` only.
pid_t start_child(const fs::path& run) {
  ::setenv(kVariable, run.c_str(), 1);
  std::string self = "/proc/self/exe", filter = "--gtest_filter=Kill.ResumedRunsEndWithTheSameAdapter",
              quiet = "--gtest_brief=1";
  char* arguments[] = {self.data(), filter.data(), quiet.data(), nullptr};
  pid_t child = -1;
  EXPECT_EQ(::posix_spawn(&child, self.c_str(), nullptr, nullptr, arguments, environ), 0);
  ::unsetenv(kVariable);
  return child;
}

/// Kills the child after a random while, unless it ends before.
bool ended_before_kill(pid_t child, std::mt19937& random) {
  const int delay_ms = std::uniform_int_distribution<int>(0, 700)(random);
  for (int waited = 0; waited < delay_ms; ++waited) {
    int status = 0;
    if (::waitpid(child, &status, WNOHANG) == child) {
      EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
      return true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  return false;
}

TEST(Kill, ResumedRunsEndWithTheSameAdapter) {
  if (const char* run = std::getenv(kVariable)) return train_as_child(run);
  TinyRun tiny;
  ::setenv("TMPDIR", tiny.folder.path().c_str(), 1);  // what killed children leave goes with this test's folder
  CpuContext cpu;
  const TrainResult whole = train(cpu.ctx, long_recipe(tiny), tiny.data);
  const fs::path run = tiny.folder / "killed";
  std::mt19937 random(20240601);
  int kills = 0;
  while (kills < 12 && !ended_before_kill(start_child(run), random)) ++kills;
  EXPECT_GT(kills, 0);
  if (!eval::is_run(run)) {
    int status = -1;
    ::waitpid(start_child(run), &status, 0);  // whatever is left, undisturbed
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  EXPECT_EQ(tiny.adapter("killed"), tiny.adapter("run")) << "after " << kills << " kills";
  EXPECT_EQ(eval::read_run_info(run).codes_checksum, whole.info.codes_checksum);
  for (const auto& entry : fs::directory_iterator(run / "checkpoints"))
    EXPECT_TRUE(entry.path().filename().string().starts_with("step-")) << entry.path();
  for (const auto& entry : fs::recursive_directory_iterator(run))
    EXPECT_EQ(entry.path().filename().string().find(".partial."), std::string::npos) << entry.path();
}

}  // namespace
}  // namespace temper::train
