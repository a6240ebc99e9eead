// Full fine-tuning and full quantization-aware training: what ships is what was trained.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "eval/loaded_model.h"
#include "eval/score.h"
#include "model/peft.h"
#include "model/trained_weights.h"
#include "train_fixture.h"

namespace temper::train {
namespace {

using testing::CpuContext;
using testing::stop_and_resume;
using testing::TinyRun;

struct Case {
  const char* name;
  const char* scheme;
  DType compute;
  recipe::MergeDtype merge = recipe::MergeDtype::Checkpoint;
  DType stored = DType::BF16;  ///< Expected of matrices.
};

/// A run of every weight of a model with a tied table.
struct FullRun : TinyRun {
  explicit FullRun(const Case& c) : TinyRun({.tied = true}, c.scheme) {
    recipe.train.mode = recipe::TrainMode::Full;
    recipe.quant.merge_dtype = c.merge;
    recipe.optim.lr = 3e-3;
  }
};

/// Of the held-out rows, as a finished run's model scores them; its codes must have the checksum that training ended with.
double held_out_nll(const CpuContext& cpu, const TinyRun& tiny, const TrainResult& result,
                    const model::CheckpointReader& reader, model::Adapters* adapters) {
  model::BaseWeights weights(reader, cpu.ctx.compute);
  if (adapters) adapters->prepare(cpu.ctx, weights);
  std::optional<model::EncodedWeights> encoded;
  if (result.info.scheme != "none") {
    encoded.emplace(cpu.ctx, weights, quant::scheme(result.info.scheme), weights.storage());
    encoded->encode(cpu.ctx, adapters);
    EXPECT_EQ(eval::codes_checksum(*encoded), result.info.codes_checksum);
  }
  model::WeightSource& source = encoded ? static_cast<model::WeightSource&>(*encoded) : weights;
  model::Transformer transformer(reader.arch(), source, adapters, encoded.has_value());
  double nll = 0;
  for (const eval::RowScore& score : eval::score_samples(cpu.ctx, transformer, tiny.data.held_out)) nll += score.nll;
  return nll / static_cast<double>(result.held_out->tokens);
}

class Full : public ::testing::TestWithParam<Case> {};

/// Reopened, a run scores the held-out rows to the bit as it did when it ended, and makes the same codes.
TEST_P(Full, ReopensAsItWasTrained) {
  const Case& c = GetParam();
  const FullRun tiny(c);
  CpuContext cpu(c.compute);
  double first_loss = 0;
  Hooks hooks;
  hooks.on_step = [&](const StepLog& line) {
    if (line.step == 1) first_loss = line.loss;
  };
  const TrainResult result = train(cpu.ctx, tiny.recipe, tiny.data, hooks);
  EXPECT_LT(result.last_loss, first_loss - 0.5);
  const eval::RunInfo info = eval::read_run_info(result.run);
  EXPECT_TRUE(info.full);
  EXPECT_FALSE(std::filesystem::exists(result.run / "adapter"));

  const auto base = model::CheckpointReader::open(info.base_model);
  const auto reader = model::with_trained_weights(base, result.run / model::kTrainedWeightsName);
  EXPECT_EQ(reader.arch().dtype, c.stored);
  EXPECT_EQ(held_out_nll(cpu, tiny, result, reader, nullptr), result.held_out->nll);
}

INSTANTIATE_TEST_SUITE_P(Schemes, Full,
                         ::testing::Values(Case{"none", "none", DType::BF16}, Case{"none_f32", "none", DType::F32},
                                           Case{"unrounded", "none", DType::F32, recipe::MergeDtype::F32, DType::F32},
                                           Case{"q4_0", "q4_0", DType::F32}, Case{"q4_0_bf16", "q4_0", DType::BF16},
                                           Case{"table", "int4-sym-g32; embedding,head: int8-sym; layers 0: none",
                                                DType::F32},
                                           Case{"merged_f32", "q8_0", DType::F32, recipe::MergeDtype::F32, DType::F32}),
                         [](const auto& test) { return std::string(test.param.name); });

struct BesideCase {
  const char* name;
  const char* scheme;
  bool tied;
  std::vector<std::string> modules;
};

class Beside : public ::testing::TestWithParam<BesideCase> {};

/// Embeddings and head trained beside adapters, the same; and they have moved.
TEST_P(Beside, ReopensAsItWasTrained) {
  const BesideCase& c = GetParam();
  TinyRun tiny({.tied = c.tied}, c.scheme);
  tiny.recipe.lora.modules_to_save = c.modules;
  tiny.recipe.train.steps = 4;
  CpuContext cpu(DType::BF16);
  const TrainResult result = train(cpu.ctx, tiny.recipe, tiny.data);
  const auto base = model::CheckpointReader::open(result.info.base_model);
  std::vector<Tensor> beside;
  model::Adapters adapters = model::load_peft(base.table(), result.run / "adapter", &beside);
  ASSERT_EQ(std::ranges::count_if(beside, [](const Tensor& t) { return static_cast<bool>(t); }),
            c.tied ? 1 : std::ssize(c.modules));
  const auto reader = model::with_masters(cpu.ctx, base, beside);
  EXPECT_EQ(held_out_nll(cpu, tiny, result, reader, &adapters), result.held_out->nll);
  TrainResult unquantized = result;
  unquantized.info.scheme = "none";
  EXPECT_NE(held_out_nll(cpu, tiny, unquantized, base, &adapters), result.held_out->nll);

  // Resumed half-way, the run ends with the same bits.
  stop_and_resume(cpu.ctx, tiny, "stopped", 2);
  EXPECT_EQ(tiny.adapter("stopped"), tiny.adapter("run"));
}

INSTANTIATE_TEST_SUITE_P(Schemes, Beside,
                         ::testing::Values(BesideCase{"head", "none", false, {"lm_head"}},
                                           BesideCase{
                                               "table", "q4_0; embedding,head: q8_0", true, {"embed_tokens", "lm_head"}}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(BesideRuns, WhatTheModelDoesNotHaveIsRefused) {
  TinyRun tiny({.tied = true});
  CpuContext cpu;
  tiny.recipe.lora.modules_to_save = {"lm_head"};
  EXPECT_THROW(train(cpu.ctx, tiny.recipe, tiny.data), BadRecipe);
  tiny.recipe.lora.modules_to_save = {"norm"};
  EXPECT_THROW(train(cpu.ctx, tiny.recipe, tiny.data), BadRecipe);
  tiny.recipe.lora.modules_to_save = {};
  tiny.recipe.lora.bias = recipe::LoraBias::All;
  EXPECT_THROW(train(cpu.ctx, tiny.recipe, tiny.data), BadRecipe);
}

TEST(FullRuns, WeightsOfAnotherModelAreRefused) {
  TinyRun tiny;
  tiny.recipe.train.mode = recipe::TrainMode::Full;
  tiny.recipe.train.steps = 1;
  tiny.recipe.optim.warmup_steps = 0;
  CpuContext cpu;
  const TrainResult result = train(cpu.ctx, tiny.recipe, tiny.data);
  testing::RandomModel wider, shallower;
  wider.intermediate = 128;
  shallower.layers = 1;
  for (const auto& [name, dims] : {std::pair{"wider", wider}, std::pair{"shallower", shallower}}) {
    testing::write_random_model(tiny.folder / name, dims);
    const auto other = model::CheckpointReader::open(tiny.folder / name);
    EXPECT_THROW(model::with_trained_weights(other, result.run / model::kTrainedWeightsName), BadFile) << name;
  }
}

/// Whether the base is held for training or, in another dtype, for evaluation: gains are those of the stored weights.
TEST(Dora, GainsAreThoseOfTheStoredBase) {
  const testing::TemporaryFolder folder;
  testing::write_random_model(folder / "model", {.dtype = DType::F32});
  CpuContext cpu(DType::BF16);
  const auto reader = model::CheckpointReader::open(folder / "model");
  const model::BaseWeights stored(reader, DType::BF16), operands(reader, DType::BF16, model::Hold::Operands);
  model::LoraConfig config{.r = 4, .alpha = 8, .target_modules = {}};
  config.dora = true;
  model::Adapters adapters(reader.table(), config, 3);
  adapters.init_magnitudes(cpu.ctx, stored);
  adapters.prepare(cpu.ctx, operands);
  for (const auto& entry : adapters.entries())
    for (const float gain : entry.gain.span<float>()) ASSERT_EQ(gain, 1.0f);
}

/// Gains of DoRA are made from base and adapters when a run is opened, to the bit as they were when it ended.
TEST(Dora, ReopensAsItWasTrained) {
  for (const char* scheme : {"none", "q4_0"}) {
    TinyRun tiny({}, scheme);
    tiny.recipe.lora.dora = true;
    CpuContext cpu(DType::BF16);
    const TrainResult result = train(cpu.ctx, tiny.recipe, tiny.data);
    const auto base = model::CheckpointReader::open(result.info.base_model);
    model::Adapters adapters = model::load_peft(base.table(), result.run / "adapter");
    EXPECT_TRUE(adapters.config().dora);
    EXPECT_EQ(held_out_nll(cpu, tiny, result, base, &adapters), result.held_out->nll) << scheme;
    const auto magnitude = adapters.entries()[0].magnitude.span<float>();
    std::vector<float> trained(magnitude.begin(), magnitude.end());
    adapters.init_magnitudes(cpu.ctx, model::BaseWeights(base, DType::BF16));
    EXPECT_FALSE(std::ranges::equal(trained, magnitude)) << "magnitudes are trained";
  }
}

}  // namespace
}  // namespace temper::train
