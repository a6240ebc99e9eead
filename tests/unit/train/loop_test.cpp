// A run from end to end on a tiny model: its folder, its figures, and how it ends when something is wrong.
#include "train/loop.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/interrupt.h"
#include "eval/loaded_model.h"
#include "model/peft.h"
#include "tiny_model.h"
#include "train_fixture.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using testing::CpuContext;
using testing::log_of;
using testing::RandomModel;
using testing::TinyRun;

template <typename Kind>
std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Kind& error) {
    return error.what();
  }
  return "nothing thrown";
}

TEST(Loop, LearnsAndWritesItsFolder) {
  TinyRun tiny;
  tiny.recipe.train.steps = 30;
  tiny.recipe.train.eval_every = 10;
  CpuContext cpu;
  const TrainResult result = train(cpu.ctx, tiny.recipe, tiny.data);
  const auto lines = log_of(tiny.recipe.out);
  ASSERT_EQ(lines.size(), 30u);
  EXPECT_LT(result.last_loss, lines[0]["loss"].get<double>() - 0.5);
  EXPECT_EQ(result.info.steps, 30);
  EXPECT_EQ(result.info.scheme, "none");
  EXPECT_EQ(result.info.codes_checksum, "");
  ASSERT_TRUE(result.held_out);
  EXPECT_EQ(result.held_out->step, 30);
  EXPECT_EQ(result.held_out->rows, 8);
  EXPECT_LT(result.held_out->nll, lines[9]["eval_nll"].get<double>());
  EXPECT_GT(result.tokens_per_second, 0);
  EXPECT_GT(result.peak_memory_bytes, 1 << 20);
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i]["step"], i + 1);
    EXPECT_EQ(lines[i].contains("eval_nll"), (i + 1) % 10 == 0);
    EXPECT_GT(lines[i]["grad_norm"].get<double>(), 0);
    tokens += lines[i]["tokens"].get<std::int64_t>();
  }
  EXPECT_EQ(result.tokens, tokens);
  EXPECT_TRUE(eval::is_run(tiny.recipe.out));
  EXPECT_EQ(eval::read_run_info(tiny.recipe.out).base_model, tiny.recipe.model.path);
  const model::CheckpointReader reader = model::CheckpointReader::open(tiny.recipe.model.path);
  EXPECT_EQ(model::load_peft(reader.table(), fs::path(tiny.recipe.out) / "adapter").config().r, 4);
}

TEST(Loop, ShipsTheCodesOfTheLastForwardPass) {
  TinyRun tiny({}, "q4_0");
  CpuContext cpu;
  const TrainResult result = train(cpu.ctx, tiny.recipe, tiny.data);
  const model::CheckpointReader reader = model::CheckpointReader::open(tiny.recipe.model.path);
  model::BaseWeights base(reader, cpu.ctx.compute);
  const model::Adapters adapters = model::load_peft(reader.table(), fs::path(tiny.recipe.out) / "adapter");
  model::EncodedWeights weights(cpu.ctx, base, quant::scheme("q4_0"), base.storage());
  weights.encode(cpu.ctx, &adapters);
  EXPECT_EQ(result.info.codes_checksum, eval::codes_checksum(weights));
  const auto lines = log_of(tiny.recipe.out);
  EXPECT_EQ(lines[0]["changed"], 0.0);
  EXPECT_GT(lines[4]["changed"].get<double>(), 0.0);
}

TEST(Loop, ReadsRowsFromFiles) {
  TinyRun tiny;
  testing::write_tiny_tokenizer(tiny.recipe.model.path);
  std::string rows;
  for (int i = 0; i < 9; ++i)
    rows += nlohmann::json{{"prompt", "what is " + std::to_string(i) + "?"}, {"completion", "it is " + std::to_string(i)}}
                .dump() +
            "\n";
  tiny.recipe.data.path = (tiny.folder / "train.jsonl").string();
  tiny.recipe.data.eval_path = (tiny.folder / "held_out.jsonl").string();
  testing::spill(tiny.recipe.data.path, rows);
  testing::spill(tiny.recipe.data.eval_path, rows);
  tiny.recipe.train.eval_rows = 5;
  CpuContext cpu;
  const TrainResult result = train(cpu.ctx, tiny.recipe);
  ASSERT_TRUE(result.held_out);
  EXPECT_EQ(result.held_out->rows, 5);
  const std::string before = tiny.adapter("run");
  EXPECT_THROW(train(cpu.ctx, tiny.recipe), BadRecipe);
  recipe::Recipe resumed;  // names nothing but the run: everything else comes from its checkpoint
  resumed.train.resume = tiny.recipe.out;
  train(cpu.ctx, resumed);
  EXPECT_EQ(tiny.adapter("run"), before);
  testing::spill(tiny.recipe.data.path, rows + "{broken\n");
  EXPECT_THROW(train(cpu.ctx, tiny.to("other")), BadData);
  EXPECT_FALSE(fs::exists(tiny.folder / "other"));
}

TEST(Loop, EpochsCountSteps) {
  TinyRun tiny;
  tiny.recipe.train.steps = 0;
  tiny.recipe.train.epochs = 2;
  tiny.recipe.data.packing = recipe::Packing::None;
  tiny.recipe.train.batch_size = 9;
  CpuContext cpu;
  EXPECT_EQ(train(cpu.ctx, tiny.recipe, tiny.data).info.steps, 9);  // ⌈2 · 40 / 9⌉
}

TEST(Loop, AFinishedRunIsNotOverwritten) {
  TinyRun tiny;
  CpuContext cpu;
  train(cpu.ctx, tiny.recipe, tiny.data);
  const std::string before = tiny.adapter("run");
  EXPECT_THROW(train(cpu.ctx, tiny.recipe, tiny.data), BadRecipe);
  EXPECT_EQ(tiny.adapter("run"), before);
}

TEST(Loop, ErrorsBeforeTheFirstStepMakeNoFolder) {
  TinyRun tiny;
  CpuContext cpu;
  recipe::Recipe bad = tiny.recipe;
  bad.lora.layers_to_transform = {"last"};
  EXPECT_THROW(train(cpu.ctx, bad, tiny.data), BadRecipe);
  bad = tiny.recipe;
  bad.lora.r = 0;
  EXPECT_THROW(train(cpu.ctx, bad, tiny.data), BadRecipe);
  bad = tiny.recipe;
  bad.quant.scheme = "int4-gptq";
  EXPECT_THROW(train(cpu.ctx, bad, tiny.data), BadRecipe);
  bad = tiny.recipe;
  bad.model.path += "x";
  EXPECT_THROW(train(cpu.ctx, bad, tiny.data), BadFile);
  bad = tiny.recipe;
  bad.train.steps = 0;
  bad.train.epochs = 0.01;
  bad.quant.scheme = "q4_0";
  bad.quant.start_step = 5;
  EXPECT_THROW(train(cpu.ctx, bad, tiny.data), BadRecipe);
  EXPECT_FALSE(fs::exists(tiny.recipe.out));
}

TEST(Loop, DivergenceNamesTheStepAndKeepsTheLastCheckpoint) {
  TinyRun tiny;
  tiny.recipe.train.checkpoint_every = 2;
  tiny.recipe.train.steps = 50;
  tiny.recipe.train.max_grad_norm = 0;
  tiny.recipe.optim.warmup_steps = 0;
  CpuContext cpu;
  Hooks hooks;
  // After five sane steps the rate explodes: adapters of 1e30 overflow their product in f32.
  tiny.recipe.optim.schedule = recipe::Schedule::Constant;
  tiny.recipe.optim.lr = 1e-3;
  hooks.on_step = [](const StepLog& line) {
    if (line.step == 5) set_interrupted(true);
  };
  EXPECT_THROW(train(cpu.ctx, tiny.recipe, tiny.data, hooks), Interrupted);
  set_interrupted(false);
  recipe::Recipe other = tiny.to("wild");
  other.optim.lr = 1e30;
  other.train.checkpoint_every = 1;
  const std::string said = message_of<Diverged>([&] { train(cpu.ctx, other, tiny.data); });
  EXPECT_NE(said.find("step 2"), std::string::npos) << said;
  EXPECT_NE(said.find("step-1"), std::string::npos) << said;  // the last good checkpoint
  EXPECT_FALSE(fs::exists(fs::path(other.out) / "run.json"));
}

TEST(Loop, ANonFiniteBaseIsNamed) {
  TinyRun tiny(RandomModel{.poison = std::numeric_limits<float>::quiet_NaN()});
  CpuContext cpu;
  const std::string said = message_of<Diverged>([&] { train(cpu.ctx, tiny.recipe, tiny.data); });
  EXPECT_NE(said.find("step 1"), std::string::npos) << said;
  EXPECT_NE(said.find("No checkpoint"), std::string::npos) << said;
}

TEST(Loop, CtrlCSavesAndSaysHowToGoOn) {
  TinyRun tiny;
  CpuContext cpu;
  Hooks hooks;
  hooks.on_step = [](const StepLog& line) {
    if (line.step == 3) set_interrupted(true);
  };
  const std::string said = message_of<Interrupted>([&] { train(cpu.ctx, tiny.recipe, tiny.data, hooks); });
  set_interrupted(false);
  EXPECT_NE(said.find("step 3 of 8"), std::string::npos) << said;
  EXPECT_NE(said.find("--resume " + tiny.recipe.out), std::string::npos) << said;
  EXPECT_TRUE(fs::exists(fs::path(tiny.recipe.out) / "checkpoints" / "step-3" / "manifest.json"));
  EXPECT_FALSE(eval::is_run(tiny.recipe.out));
}

TEST(Loop, AResumedRunNeedsTheSameModelAndRows) {
  TinyRun tiny;
  CpuContext cpu;
  train(cpu.ctx, tiny.recipe, tiny.data);
  TrainData other_rows = tiny.data;
  other_rows.train[3].ids[2] ^= 1;
  EXPECT_NE(message_of<BadRecipe>([&] { train(cpu.ctx, tiny.resuming("run"), other_rows); }).find("training data"),
            std::string::npos);
  CpuContext bf16(DType::BF16);
  EXPECT_NE(message_of<BadRecipe>([&] { train(bf16.ctx, tiny.resuming("run"), tiny.data); }).find("runtime.compute"),
            std::string::npos);
  testing::write_random_model(tiny.recipe.model.path, RandomModel{.seed = 2});
  EXPECT_NE(message_of<BadRecipe>([&] { train(cpu.ctx, tiny.resuming("run"), tiny.data); }).find("base model"),
            std::string::npos);
}

}  // namespace
}  // namespace temper::train
