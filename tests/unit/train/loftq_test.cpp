// Adapters that begin as what a quantized base has lost.
#include "train/loftq.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "jacobi.h"
#include "model/base_format.h"
#include "model/peft.h"
#include "train_fixture.h"

namespace temper::train {
namespace {

using testing::CpuContext;
using testing::TinyRun;

/// With the adapter, the base is as near to the 16-bit weights as its rank allows, whatever the scale.
TEST(LoftQ, BeginsAtTheNearest) {
  TinyRun tiny;
  tiny.recipe.model.base_format = "int4-asym-g32";
  tiny.recipe.lora.init = recipe::LoraInit::LoftQ;
  tiny.recipe.lora.alpha = 20;  // s = 5
  tiny.recipe.optim.lr = 0;
  tiny.recipe.optim.warmup_steps = 0;
  tiny.recipe.train.steps = 1;
  CpuContext cpu;
  const TrainResult result = train(cpu.ctx, tiny.recipe, tiny.data);
  const auto original = model::CheckpointReader::open(tiny.recipe.model.path);
  const auto rounded = model::open_base(cpu.ctx, tiny.recipe.model.path, "int4-asym-g32");
  const model::Adapters adapters = model::load_peft(original.table(), result.run / "adapter");
  for (const auto& entry : adapters.entries()) {
    const Shape& shape = original.table()[entry.tensor].shape;
    const Tensor wanted(DType::F32, shape), held(DType::F32, shape), merged(DType::F32, shape);
    original.read(entry.tensor, wanted);
    rounded.read(entry.tensor, held);
    ops::merge_lora(cpu.ctx, held, adapters.lora(entry), merged);
    std::vector<double> lost;
    double left = 0;
    for (std::size_t i = 0; i < wanted.span<float>().size(); ++i) {
      lost.push_back(static_cast<double>(wanted.span<float>()[i]) - static_cast<double>(held.span<float>()[i]));
      const double d = static_cast<double>(wanted.span<float>()[i]) - static_cast<double>(merged.span<float>()[i]);
      left += d * d;
    }
    const auto values = testing::singular_values(lost, static_cast<std::size_t>(shape[1]));
    const double all = testing::squares_from(values, 0), best = testing::squares_from(values, 4);
    EXPECT_GT(all, 0);
    EXPECT_LE(left, best + 1e-3 * all) << original.table()[entry.tensor].hf_name;
    EXPECT_LT(left, 0.9 * all);
  }
}

TEST(LoftQ, ResumesBitForBit) {
  TinyRun tiny;
  tiny.recipe.model.base_format = "int4-asym-g32";
  tiny.recipe.lora.init = recipe::LoraInit::LoftQ;
  CpuContext cpu;
  train(cpu.ctx, tiny.recipe, tiny.data);
  testing::stop_and_resume(cpu.ctx, tiny, "stopped", 3);
  EXPECT_EQ(tiny.adapter("stopped"), tiny.adapter("run"));
}

}  // namespace
}  // namespace temper::train
