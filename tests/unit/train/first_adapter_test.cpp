// Training that begins from an adapter: its values and config are taken, others are refused, and the run resumes like any.
#include "train/first_adapter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/interrupt.h"
#include "eval/loaded_model.h"
#include "files/safetensors.h"
#include "model/peft.h"
#include "train_fixture.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using testing::CpuContext;
using testing::TinyRun;

/// A tuned 16-bit run of rank 4 and alpha 8 in "run", and a recipe that begins from it and asks for nothing of its own.
struct Tuned {
  TinyRun tiny;
  CpuContext cpu;
  Tuned() { train(cpu.ctx, tiny.recipe, tiny.data); }
  recipe::Recipe from_it(const std::string& name, const std::string& scheme = "none") const {
    recipe::Recipe recipe = tiny.to(name);
    recipe.lora = {};
    recipe.lora.adapter = (tiny.folder / "run").string();
    recipe.quant.scheme = scheme;
    return recipe;
  }
  std::string error_of(const recipe::Recipe& recipe) {
    try {
      train(cpu.ctx, recipe, tiny.data);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

TEST(FirstAdapter, ItsValuesAndConfigAreWhatTrainingBeginsWith) {
  Tuned tuned;
  recipe::Recipe next = tuned.from_it("next");
  next.optim.lr = 0;
  next.optim.warmup_steps = 0;
  train(tuned.cpu.ctx, next, tuned.tiny.data);
  EXPECT_EQ(tuned.tiny.adapter("next"), tuned.tiny.adapter("run"));
  recipe::Recipe stored;
  recipe::load_yaml(tuned.tiny.folder / "next" / "recipe.yaml", stored);
  EXPECT_EQ(stored.lora.r, 4);
  EXPECT_EQ(stored.lora.alpha, 8);
  // The adapter's own folder is as good as the run's.
  next.out = (tuned.tiny.folder / "again").string();
  next.lora.adapter += "/adapter";
  train(tuned.cpu.ctx, next, tuned.tiny.data);
  EXPECT_EQ(tuned.tiny.adapter("again"), tuned.tiny.adapter("run"));
}

/// The first codes of quantization-aware training are those of the tuned weights, merged and rounded.
TEST(FirstAdapter, QuantizationAwareTrainingBeginsFromTheTunedWeights) {
  Tuned tuned;
  recipe::Recipe next = tuned.from_it("next", "int4-sym-g32");
  next.optim.lr = 0;
  next.optim.warmup_steps = 0;
  const TrainResult result = train(tuned.cpu.ctx, next, tuned.tiny.data);
  const auto reader = model::CheckpointReader::open(tuned.tiny.recipe.model.path);
  const model::Adapters adapters = model::load_peft(reader.table(), tuned.tiny.folder / "run" / "adapter");
  model::BaseWeights base(reader, DType::F32);
  model::EncodedWeights encoded(tuned.cpu.ctx, base, quant::scheme("int4-sym-g32"), base.storage());
  encoded.encode(tuned.cpu.ctx, &adapters);
  EXPECT_EQ(result.info.codes_checksum, eval::codes_checksum(encoded));
}

/// The checkpoint has taken the adapter's place: it may be gone.
TEST(FirstAdapter, ResumesBitForBit) {
  for (const char* scheme : {"none", "q4_0"}) {
    Tuned tuned;
    const recipe::Recipe whole = tuned.from_it("whole", scheme);
    recipe::Recipe stopped = tuned.from_it("stopped", scheme);
    const TrainResult expected = train(tuned.cpu.ctx, whole, tuned.tiny.data);
    Hooks hooks;
    hooks.on_step = [](const StepLog& line) {
      if (line.step == 3) set_interrupted(true);
    };
    EXPECT_THROW(train(tuned.cpu.ctx, stopped, tuned.tiny.data, hooks), Interrupted);
    set_interrupted(false);
    stopped.train.resume = stopped.out;
    fs::remove_all(tuned.tiny.folder / "run");
    stopped.model.path.clear();  // asks for nothing but to go on
    const TrainResult found = train(tuned.cpu.ctx, stopped, tuned.tiny.data);
    EXPECT_EQ(tuned.tiny.adapter("stopped"), tuned.tiny.adapter("whole")) << scheme;
    EXPECT_EQ(found.info.codes_checksum, expected.info.codes_checksum) << scheme;
  }
}

TEST(FirstAdapter, WhatContradictsItIsRefused) {
  Tuned tuned;
  recipe::Recipe next = tuned.from_it("next");
  next.lora.r = 8;
  const std::string error = tuned.error_of(next);
  EXPECT_NE(error.find("lora.r (8) contradicts lora.adapter"), std::string::npos) << error;
  EXPECT_NE(error.find("has 4"), std::string::npos) << error;
  next.lora = tuned.from_it("next").lora;
  next.lora.target_modules = {"q_proj"};
  EXPECT_NE(tuned.error_of(next).find("lora.target_modules (q_proj)"), std::string::npos) << tuned.error_of(next);
  next.lora = tuned.from_it("next").lora;
  next.lora.r = 4;  // says the same
  next.lora.target_modules = {"down_proj", "up_proj", "gate_proj", "o_proj", "v_proj", "k_proj", "q_proj"};
  EXPECT_EQ(tuned.error_of(next), "");
}

TEST(FirstAdapter, OneForAnotherBaseIsRefused) {
  Tuned tuned;
  recipe::Recipe next = tuned.from_it("next");
  testing::write_random_model(tuned.tiny.folder / "other", {.seed = 2});
  next.model.path = (tuned.tiny.folder / "other").string();
  const std::string error = tuned.error_of(next);
  EXPECT_NE(error.find("was trained on another base, " + (tuned.tiny.folder / "model").string()), std::string::npos)
      << error;
  next.lora.adapter_any_base = true;
  EXPECT_EQ(tuned.error_of(next), "");
  testing::write_random_model(tuned.tiny.folder / "narrow", {.intermediate = 64});
  next.model.path = (tuned.tiny.folder / "narrow").string();
  next.out = (tuned.tiny.folder / "third").string();
  EXPECT_NE(tuned.error_of(next).find("expected shape [64, 4], found [96, 4]"), std::string::npos) << tuned.error_of(next);
  testing::write_random_model(tuned.tiny.folder / "small", {.hidden = 8, .intermediate = 8, .heads = 4, .kv_heads = 2});
  next.model.path = (tuned.tiny.folder / "small").string();
  next.lora.adapter_any_base = false;
  testing::write_random_model(tuned.tiny.folder / "deep", {.layers = 3});
  next.model.path = (tuned.tiny.folder / "deep").string();
  EXPECT_NE(tuned.error_of(next).find("layers.2"), std::string::npos) << tuned.error_of(next);
}

TEST(FirstAdapter, ARankLargerThanTheMatrixIsRefused) {
  Tuned tuned;
  recipe::Recipe next = tuned.from_it("next");
  testing::write_random_model(tuned.tiny.folder / "small", {.hidden = 8, .intermediate = 8, .heads = 4, .kv_heads = 1});
  next.model.path = (tuned.tiny.folder / "small").string();
  const std::string error = tuned.error_of(next);  // k_proj is [2, 8]
  EXPECT_NE(error.find("the rank must be from 1 to 2"), std::string::npos) << error;
}

TEST(FirstAdapter, WhatIsNoneIsNamed) {
  Tuned tuned;
  recipe::Recipe next = tuned.from_it("next");
  next.lora.adapter = (tuned.tiny.folder / "model").string();
  EXPECT_NE(tuned.error_of(next).find("neither a folder with adapter_config.json"), std::string::npos);
  recipe::Recipe full = tuned.tiny.to("full");
  full.train.mode = recipe::TrainMode::Full;
  train(tuned.cpu.ctx, full, tuned.tiny.data);
  next.lora.adapter = full.out;
  EXPECT_NE(tuned.error_of(next).find("trained no adapter"), std::string::npos) << tuned.error_of(next);
}

/// One that peft wrote, with biases and a tied table beside it: the first step's loss is peft's but for the table, which is
/// rounded to the base's bf16 before it is used (a part in 2⁹ of each logit, of some 0.1 here), and what is written is what
/// was read (tools/oracles/make_peft_beside_golden.py).
TEST(FirstAdapter, APeftAdapterIsContinued) {
  const fs::path data = TEMPER_TEST_DATA, golden = data / "peft" / "beside";
  const files::SafetensorsFile parity(golden / "parity.safetensors"), theirs(golden / "adapter_model.safetensors");
  const auto integers = [&](const char* name) {
    std::vector<std::int64_t> values(parity.at(name).data.size() / sizeof(std::int64_t));
    std::memcpy(values.data(), parity.at(name).data.data(), parity.at(name).data.size());
    return values;
  };
  text::Sample sample;
  sample.row = 1;
  for (const std::int64_t id : integers("input_ids")) sample.ids.push_back(static_cast<std::int32_t>(id));
  for (const std::int64_t label : integers("labels")) sample.labelled.push_back(label >= 0 ? 1 : 0);
  float expected = 0;
  std::memcpy(&expected, parity.at("loss").data.data(), sizeof expected);

  TinyRun tiny;
  tiny.data = {{sample}, {}};
  tiny.recipe.model.path = (data / "hf" / "family_qwen2").string();
  tiny.recipe.lora = {};
  tiny.recipe.lora.adapter = golden.string();
  tiny.recipe.optim.lr = 0;
  tiny.recipe.optim.warmup_steps = 0;
  tiny.recipe.train.steps = 1;
  tiny.recipe.train.batch_size = 1;
  CpuContext cpu;
  EXPECT_NEAR(train(cpu.ctx, tiny.recipe, tiny.data).last_loss, double{expected}, 2e-4);
  const files::SafetensorsFile ours(tiny.folder / "run" / "adapter" / "adapter_model.safetensors");
  ASSERT_EQ(ours.tensors().size(), theirs.tensors().size());
  for (const files::SafetensorsTensor& tensor : theirs.tensors())
    EXPECT_TRUE(std::ranges::equal(ours.at(tensor.name).data, tensor.data)) << tensor.name;
}

}  // namespace
}  // namespace temper::train
