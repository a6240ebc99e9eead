// Learnt scales and static ranges: what a run with them keeps through micro-batches, threads and resuming, and what it
// leaves in its folder.
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/parallel.h"
#include "eval/loaded_model.h"
#include "eval/score.h"
#include "model/kept_codes.h"
#include "model/static_ranges.h"
#include "train_fixture.h"

namespace temper::train {
namespace {

using testing::CpuContext;
using testing::slurp;
using testing::stop_and_resume;
using testing::TinyRun;

struct Case {
  const char* name;
  const char* scheme;
  bool scales, ranges;
  DType compute = DType::F32;
  recipe::TrainMode mode = recipe::TrainMode::Lora;
};

struct LearntRun : TinyRun {
  explicit LearntRun(const Case& c) : TinyRun({}, c.scheme) {
    recipe.quant.learn_scales = c.scales;
    recipe.quant.learn_ranges = c.ranges;
    recipe.quant.scales_lr = recipe.quant.ranges_lr = 5e-3;
    recipe.quant.range_tokens = 200;
    recipe.quant.range_method = recipe::RangeMethod::Percentile;
    recipe.quant.range_percentile = 99;
    recipe.train.mode = c.mode;
    recipe.train.steps = 3;
    recipe.train.micro_batch = 2;
    recipe.optim.weight_decay = 0.01;
  }
};

/// Everything that a finished run ships.
std::string shipped(const TinyRun& tiny, const std::string& name) {
  const std::filesystem::path run = tiny.folder.path() / name;
  std::string all;
  for (const char* file :
       {"adapter/adapter_model.safetensors", "weights.safetensors", model::kKeptCodesName, model::kRangesName, "run.json"})
    if (std::filesystem::exists(run / file)) all += slurp(run / file);
  return all;
}

class LearntRuns : public ::testing::TestWithParam<Case> {};

TEST_P(LearntRuns, ResumeBitForBit) {
  const LearntRun tiny(GetParam());
  CpuContext cpu(GetParam().compute);
  train(cpu.ctx, tiny.recipe, tiny.data);
  for (const std::int64_t stop : {2}) {
    const std::string name = "stopped-" + std::to_string(stop);
    stop_and_resume(cpu.ctx, tiny, name, stop);
    EXPECT_EQ(shipped(tiny, name), shipped(tiny, "run")) << "stopped after step " << stop;
  }
}

TEST_P(LearntRuns, ThreadsDoNotMatter) {
  const LearntRun tiny(GetParam());
  CpuContext cpu(GetParam().compute);
  const int threads = num_threads();
  set_num_threads(1);
  train(cpu.ctx, tiny.to("one"), tiny.data);
  set_num_threads(2);
  train(cpu.ctx, tiny.to("two"), tiny.data);
  set_num_threads(threads);
  EXPECT_EQ(shipped(tiny, "one"), shipped(tiny, "two"));
}

INSTANTIATE_TEST_SUITE_P(
    Schemes, LearntRuns,
    ::testing::Values(Case{"scales", "int4-sym-g32", true, false}, Case{"scales_q4_0", "q4_0", true, false, DType::BF16},
                      Case{"static", "int8-sym/int8-static-asym", false, false, DType::BF16},
                      Case{"both", "int4-sym-g32/int8-static-asym/fp8-static; head: int8-sym", true, true},
                      Case{"full", "int4-asym-g32/int8-static-sym", true, true, DType::F32, recipe::TrainMode::Full},
                      Case{"weights_stay", "int4-sym-g32/fp8-static", true, true, DType::F32,
                           recipe::TrainMode::Quantization}),
    [](const auto& test) { return std::string(test.param.name); });

/// The encoded weights of a run's folder, made as whoever opens it makes them.
struct Opened {
  model::CheckpointReader reader;
  model::BaseWeights base;
  model::EncodedWeights weights;

  Opened(const CpuContext& cpu, const TinyRun& tiny, const char* name)
      : reader(model::CheckpointReader::open(tiny.recipe.model.path)),
        base(reader, cpu.ctx.compute),
        weights(cpu.ctx, base, quant::scheme(tiny.recipe.quant.scheme), base.storage()) {
    const std::filesystem::path run = tiny.folder.path() / name;
    if (std::filesystem::exists(run / model::kRangesName)) model::restore_ranges(run / model::kRangesName, weights);
    const auto how = model::restore_kept_codes(cpu.ctx, run / model::kKeptCodesName, weights);
    weights.encode(cpu.ctx, nullptr, nullptr, how);
  }
};

TEST(LearntQuantization, AFolderHasWhatTheLastForwardPassUsed) {
  LearntRun tiny(Case{"", "int4-sym-g32/int8-static-asym/int8-static-sym", true, true});
  tiny.recipe.train.mode = recipe::TrainMode::Quantization;
  CpuContext cpu;
  const TrainResult result = train(cpu.ctx, tiny.recipe, tiny.data);
  EXPECT_TRUE(result.info.weights_stay && result.info.static_ranges && result.info.kept_codes);
  Opened opened(cpu, tiny, "run");
  EXPECT_EQ(eval::codes_checksum(opened.weights), result.info.codes_checksum);
  model::Transformer model(opened.reader.arch(), opened.weights, nullptr, true);
  ExecContext as_trained = cpu.ctx;
  as_trained.integer_products = false;  // training multiplies decoded operands unless quant.forward says otherwise
  double nll = 0;
  std::int64_t tokens = 0;
  for (const eval::RowScore& score : eval::score_samples(as_trained, model, tiny.data.held_out)) {
    nll += score.nll;
    tokens += score.tokens;
  }
  EXPECT_EQ(nll / static_cast<double>(tokens), result.held_out->nll);
}

TEST(LearntQuantization, LearningLowersTheLossWithoutTouchingWeights) {
  const auto last_loss = [](bool scales, bool ranges, double lr) {
    LearntRun tiny(Case{"", "int3-sym-g32/int8-static-asym", scales, ranges});
    tiny.recipe.quant.scales_lr = tiny.recipe.quant.ranges_lr = lr;
    tiny.recipe.train.mode = recipe::TrainMode::Quantization;
    tiny.recipe.train.steps = 20;
    CpuContext cpu;
    return train(cpu.ctx, tiny.recipe, tiny.data).held_out->nll;
  };
  const double still = last_loss(true, true, 1e-12);
  EXPECT_LT(last_loss(true, false, 1e-2), still - 0.01);
  EXPECT_LT(last_loss(false, true, 1e-2), still);
}

TEST(LearntQuantization, WhatASchemeLacksIsRefused) {
  const auto message = [](const Case& c) {
    const LearntRun tiny(c);
    CpuContext cpu;
    try {
      train(cpu.ctx, tiny.recipe, tiny.data);
    } catch (const BadRecipe& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(message({"", "mxfp4", true, false}).find("learn_scales"), std::string::npos);
  EXPECT_NE(message({"", "int4-sym-g32/int8-asym", false, true}).find("no static ranges"), std::string::npos);
  EXPECT_NE(message({"", "nvfp4-w4a4", false, true}).find("every group finds its own"), std::string::npos);
}

TEST(LearntQuantization, RangesOfAnotherRunAreRefused) {
  const LearntRun tiny(Case{"", "int4-sym-g32/int8-static-asym", false, false});
  CpuContext cpu;
  train(cpu.ctx, tiny.recipe, tiny.data);
  const auto reader = model::CheckpointReader::open(tiny.recipe.model.path);
  model::BaseWeights base(reader, DType::F32);
  const auto path = tiny.folder.path() / "run" / model::kRangesName;
  model::EncodedWeights outputs(cpu.ctx, base, quant::scheme("int4-sym-g32/int8-static-asym/fp8-static"), base.storage());
  EXPECT_THROW(model::restore_ranges(path, outputs), BadFile);  // has no outputs
  model::EncodedWeights weights(cpu.ctx, base, quant::scheme("int4-sym-g32/int8-static-asym"), base.storage());
  model::restore_ranges(path, weights);
  const auto sites = model::range_sites(weights);
  EXPECT_EQ(sites.size(), 8u);  // four of a block
  for (const model::RangeSite& site : sites) EXPECT_TRUE(model::range_of(weights, site).known()) << site.name;
}

}  // namespace
}  // namespace temper::train
