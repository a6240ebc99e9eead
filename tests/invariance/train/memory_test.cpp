// What a run says it will take, and what it then takes.
#include <gtest/gtest.h>

#include "train_fixture.h"

namespace temper::train {
namespace {

double total(const MemoryPlan& plan) { return static_cast<double>(plan.peak()); }

class Memory : public ::testing::TestWithParam<recipe::Recompute> {};

TEST_P(Memory, TheWorkspaceIsWhatWasPlanned) {
  testing::TinyRun tiny({}, "q4_0");
  tiny.recipe.train.recompute = GetParam();
  testing::CpuContext cpu;
  const TrainResult result = train(cpu.ctx, tiny.recipe, tiny.data);
  EXPECT_NEAR(static_cast<double>(cpu.arena.peak()), static_cast<double>(result.plan.arena), 0.05 * total(result.plan));
  EXPECT_LE(result.plan.arena, result.plan.peak());
}

INSTANTIATE_TEST_SUITE_P(Modes, Memory,
                         ::testing::Values(recipe::Recompute::None, recipe::Recompute::Selective, recipe::Recompute::Block,
                                           recipe::Recompute::Offload));

TEST(MemoryLimit, APlanWritesNothing) {
  testing::TinyRun tiny({}, "q4_0");
  tiny.recipe.train.plan = true;
  testing::CpuContext cpu;
  const TrainResult result = train(cpu.ctx, tiny.recipe, tiny.data);
  EXPECT_FALSE(std::filesystem::exists(tiny.recipe.out));
  for (const char* part : {"weights", "codes", "adapters", "optimizer", "activations", "peak", "offload", "s a step"})
    EXPECT_NE(result.run_plan->text().find(part), std::string::npos) << part;
}

TEST(MemoryLimit, ChoosesWhatFitsAndTrainsTheSame) {
  testing::TinyRun tiny;
  tiny.recipe.train.batch_size = 1;  // no micro-batches, whose sums may differ
  tiny.recipe.train.recompute = recipe::Recompute::None;
  testing::CpuContext cpu;
  train(cpu.ctx, tiny.to("kept"), tiny.data);
  recipe::Recipe limited = tiny.to("limited");
  // The process has grown meanwhile, so the limit is taken anew from a plan of the same moment.
  recipe::Recipe plan = tiny.to("plan");
  plan.train.plan = true;
  const std::size_t all = train(cpu.ctx, plan, tiny.data).plan.peak();
  limited.train.memory = std::to_string(all + (64 << 20)) + "B";
  train(cpu.ctx, limited, tiny.data);
  EXPECT_EQ(tiny.trained("limited"), tiny.trained("kept"));
  EXPECT_NE(testing::slurp(tiny.folder / "limited" / "recipe.yaml").find("memory: \"\""), std::string::npos);
}

TEST(MemoryLimit, NothingFits) {
  testing::TinyRun tiny({}, "q4_0");
  tiny.recipe.train.memory = "64KB";
  testing::CpuContext cpu;
  try {
    train(cpu.ctx, tiny.recipe, tiny.data);
    FAIL() << "64 KB were enough";
  } catch (const BadRecipe& error) {
    EXPECT_NE(std::string(error.what()).find("the least that this run takes"), std::string::npos) << error.what();
  }
  EXPECT_FALSE(std::filesystem::exists(tiny.recipe.out));
}

}  // namespace
}  // namespace temper::train
