// A run that was stopped and resumed ends with the adapter of one that was not, bit for bit.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "train_fixture.h"

namespace temper::train {
namespace {

using testing::CpuContext;
using testing::slurp;
using testing::stop_and_resume;
using testing::TinyRun;
using testing::train_until;

/// Everything of the log but times.
std::vector<nlohmann::json> figures_of(const std::filesystem::path& run) {
  std::vector<nlohmann::json> lines = testing::log_of(run);
  for (nlohmann::json& line : lines) {
    line.erase("seconds");
    line.erase("tokens_per_s");
  }
  return lines;
}

struct Case {
  const char* name;
  const char* scheme;
  std::int64_t start_step;
  DType compute;
  recipe::TrainMode mode = recipe::TrainMode::Lora;
  recipe::StateDtype state = recipe::StateDtype::F32;
  recipe::OptimizerName optimizer = recipe::OptimizerName::AdamW;
  const char* base_format = "stored";
  double dropout = 0;
  bool dora = false;
  recipe::LoraInit init = recipe::LoraInit::Random;
  std::int64_t loftq_iterations = 1;
};

class Resume : public ::testing::TestWithParam<Case> {};

TEST_P(Resume, AfterEveryStep) {
  const Case& c = GetParam();
  TinyRun tiny({}, c.scheme);
  tiny.recipe.quant.start_step = c.start_step;
  tiny.recipe.train.mode = c.mode;
  tiny.recipe.optim.state = c.state;
  tiny.recipe.optim.name = c.optimizer;
  tiny.recipe.model.base_format = c.base_format;
  tiny.recipe.lora.dropout = c.dropout;
  tiny.recipe.lora.dora = c.dora;
  tiny.recipe.lora.init = c.init;
  tiny.recipe.lora.loftq_iterations = c.loftq_iterations;
  tiny.recipe.train.steps = 6;
  tiny.recipe.train.eval_every = 4;
  tiny.recipe.train.micro_batch = 2;
  tiny.recipe.optim.weight_decay = 0.01;
  tiny.data.train.resize(12);  // several epochs in six steps, so that the cursor passes their ends
  CpuContext cpu(c.compute);
  const TrainResult whole = train(cpu.ctx, tiny.recipe, tiny.data);
  // Every weight and its states are many bytes; two stops will do.
  for (std::int64_t stop = 1; stop < tiny.recipe.train.steps; stop += c.mode == recipe::TrainMode::Full ? 3 : 1) {
    const std::string name = "stopped-" + std::to_string(stop);
    const TrainResult resumed = stop_and_resume(cpu.ctx, tiny, name, stop);
    EXPECT_EQ(tiny.trained(name), tiny.trained("run")) << "stopped after step " << stop;
    EXPECT_EQ(resumed.info.codes_checksum, whole.info.codes_checksum);
    EXPECT_EQ(resumed.held_out->nll, whole.held_out->nll);
    EXPECT_EQ(resumed.tokens, whole.tokens);
    EXPECT_EQ(figures_of(tiny.folder / name), figures_of(tiny.folder / "run"));
  }
}

constexpr auto kLora = recipe::TrainMode::Lora, kFull = recipe::TrainMode::Full;
INSTANTIATE_TEST_SUITE_P(
    Schemes, Resume,
    ::testing::Values(
        Case{"lora", "none", 0, DType::F32}, Case{"lora_bf16", "none", 0, DType::BF16}, Case{"q4_0", "q4_0", 0, DType::F32},
        Case{"int4_late", "int4-sym-g32", 3, DType::F32}, Case{"searched", "iq4_nl", 0, DType::F32},
        Case{"searched_late", "iq4_nl", 2, DType::F32}, Case{"full", "q4_0; embedding,head: iq4_nl", 2, DType::F32, kFull},
        Case{"full_8bit", "none", 0, DType::BF16, kFull, recipe::StateDtype::Bits8},
        Case{"bf16_states", "q8_0", 0, DType::F32, kLora, recipe::StateDtype::Bf16},
        Case{"lion_8bit", "none", 0, DType::F32, kFull, recipe::StateDtype::Bits8, recipe::OptimizerName::Lion},
        Case{"qlora", "none", 0, DType::BF16, kLora, recipe::StateDtype::F32, recipe::OptimizerName::AdamW, "int4-asym-g32"},
        Case{"qlora_qat", "q4_0", 2, DType::F32, kLora, recipe::StateDtype::F32, recipe::OptimizerName::AdamW,
             "int4-asym-g32"},
        Case{"dropout", "none", 0, DType::BF16, kLora, recipe::StateDtype::F32, recipe::OptimizerName::AdamW, "stored", 0.2},
        Case{"pissa", "none", 0, DType::BF16, kLora, recipe::StateDtype::F32, recipe::OptimizerName::AdamW, "int4-asym-g32",
             0, false, recipe::LoraInit::Pissa},
        Case{"pissa_qat", "q4_0", 2, DType::F32, kLora, recipe::StateDtype::F32, recipe::OptimizerName::AdamW,
             "int4-asym-g32", 0, true, recipe::LoraInit::Pissa},
        Case{"loftq_twice", "none", 0, DType::F32, kLora, recipe::StateDtype::F32, recipe::OptimizerName::AdamW,
             "int4-asym-g32", 0, false, recipe::LoraInit::LoftQ, 2}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(ResumeRules, AFinishedRunEndsWithTheSameAgain) {
  TinyRun tiny({}, "q8_0");
  CpuContext cpu;
  const TrainResult first = train(cpu.ctx, tiny.recipe, tiny.data);
  const std::string before = tiny.adapter("run");
  const TrainResult again = train(cpu.ctx, tiny.resuming("run"), tiny.data);
  EXPECT_EQ(tiny.adapter("run"), before);
  EXPECT_EQ(again.info.codes_checksum, first.info.codes_checksum);
  EXPECT_EQ(again.held_out->nll, first.held_out->nll);
}

TEST(ResumeRules, ACorruptNewestCheckpointCostsOnlyTime) {
  TinyRun tiny;
  tiny.recipe.train.checkpoint_every = 3;
  CpuContext cpu;
  train(cpu.ctx, tiny.recipe, tiny.data);
  train_until(cpu.ctx, tiny, "damaged", 7);
  const auto state = tiny.folder / "damaged" / "checkpoints" / "step-7" / "state.safetensors";
  testing::spill(state, slurp(state).substr(0, 1000));
  std::int64_t first_step = 0;
  Hooks hooks;
  hooks.on_step = [&](const StepLog& line) {
    if (first_step == 0) first_step = line.step;
  };
  train(cpu.ctx, tiny.resuming("damaged"), tiny.data, hooks);
  EXPECT_EQ(first_step, 7);  // from step 6 on
  EXPECT_EQ(tiny.adapter("damaged"), tiny.adapter("run"));
}

TEST(ResumeRules, ALongerRunKeepsWhatWasLearnt) {
  TinyRun tiny;
  CpuContext cpu;
  train(cpu.ctx, tiny.recipe, tiny.data);
  recipe::Recipe longer = tiny.resuming("run");
  longer.train.steps = 12;
  EXPECT_EQ(train(cpu.ctx, longer, tiny.data).info.steps, 12);
  longer.train.steps = 10;
  EXPECT_THROW(train(cpu.ctx, longer, tiny.data), BadRecipe);
}

}  // namespace
}  // namespace temper::train
