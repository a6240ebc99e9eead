// Which weights a step sees, and what the watch-dogs count.
#include "train/qat.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "eval/loaded_model.h"
#include "train_fixture.h"

namespace temper::train {
namespace {

struct Fixture {
  testing::TemporaryFolder folder;
  testing::CpuContext cpu;
  std::optional<model::CheckpointReader> reader;
  std::optional<model::BaseWeights> base;
  std::optional<model::Adapters> adapters;

  Fixture() {
    testing::write_random_model(folder / "model");
    reader.emplace(model::CheckpointReader::open(folder / "model"));
    base.emplace(*reader, cpu.ctx.compute);
    adapters.emplace(reader->table(), model::LoraConfig{.r = 4, .alpha = 8, .target_modules = {}}, 3);
  }
  QatController controller(const char* scheme, std::int64_t start = 0,
                           recipe::MergeDtype merge = recipe::MergeDtype::Checkpoint) {
    const quant::Scheme* found = scheme ? &quant::scheme(scheme) : nullptr;
    recipe::QuantOptions options;
    options.merge_dtype = merge;
    options.start_step = start;
    return QatController(cpu.ctx, *base, {.adapters = &*adapters}, reader->arch(), found, options, 100,
                         model::Recompute::None);
  }
  /// As an optimizer step would.
  void move_adapters(float by, std::uint64_t stream) {
    Rng rng(9, stream);
    for (const auto& entry : adapters->entries())
      for (const TensorView& view : {entry.a, entry.b})
        for (float& x : view.span<float>()) x += by * (2 * rng.uniform() - 1);
  }
  std::string checksum_of_merged(const char* scheme, DType merged = DType::BF16) {
    model::EncodedWeights weights(cpu.ctx, *base, quant::scheme(scheme), merged);
    weights.encode(cpu.ctx, &*adapters);
    return eval::codes_checksum(weights);
  }
};

TEST(Qat, WithoutASchemeThereAreNoCodes) {
  Fixture f;
  QatController qat = f.controller(nullptr);
  EXPECT_EQ(&qat.prepare(f.cpu.ctx, 0).weights(), &*f.base);
  EXPECT_EQ(qat.checksum(), "");
  EXPECT_EQ(qat.shares().changed, 0);
}

TEST(Qat, MergedWeightsAreRoundedToTheCheckpointsDtypeUnlessAskedOtherwise) {
  Fixture f;
  f.move_adapters(0.1f, 1);
  for (const auto& [merge, dtype] :
       {std::pair{recipe::MergeDtype::Checkpoint, DType::BF16}, std::pair{recipe::MergeDtype::F32, DType::F32}}) {
    QatController qat = f.controller("int4-sym-g32", 0, merge);
    qat.prepare(f.cpu.ctx, 0);
    EXPECT_EQ(qat.checksum(), f.checksum_of_merged("int4-sym-g32", dtype));
  }
  EXPECT_NE(f.checksum_of_merged("int4-sym-g32", DType::BF16), f.checksum_of_merged("int4-sym-g32", DType::F32));
}

TEST(Qat, CodesAreThoseOfTheMergedWeights) {
  Fixture f;
  QatController qat = f.controller("q4_0");
  for (std::int64_t step = 0; step < 3; ++step) {
    f.move_adapters(0.1f, static_cast<std::uint64_t>(step));
    EXPECT_NE(&qat.prepare(f.cpu.ctx, step).weights(), &*f.base);
    EXPECT_EQ(qat.checksum(), f.checksum_of_merged("q4_0")) << step;
  }
}

TEST(Qat, BeginsAtItsStartStep) {
  Fixture f;
  QatController qat = f.controller("int4-sym-g32", 2);
  for (std::int64_t step = 0; step < 4; ++step) {
    const bool quantized = &qat.prepare(f.cpu.ctx, step).weights() != &*f.base;
    EXPECT_EQ(quantized, step >= 2) << step;
    EXPECT_EQ(qat.active(step), step >= 2);
    EXPECT_EQ(qat.checksum().empty(), step < 2);
  }
}

TEST(Qat, EncodesOncePerStep) {
  Fixture f;
  QatController qat = f.controller("q8_0");
  qat.prepare(f.cpu.ctx, 0);
  const std::string before = qat.checksum();
  f.move_adapters(0.5f, 1);
  qat.prepare(f.cpu.ctx, 0);  // the same step: whatever follows sees the same weights
  EXPECT_EQ(qat.checksum(), before);
  qat.prepare(f.cpu.ctx, 1);
  EXPECT_NE(qat.checksum(), before);
}

TEST(Qat, CountsChangedCodes) {
  Fixture f;
  QatController qat = f.controller("int4-sym-g32");
  qat.prepare(f.cpu.ctx, 0);
  EXPECT_EQ(qat.shares().changed, 0);  // none before
  qat.prepare(f.cpu.ctx, 1);
  EXPECT_EQ(qat.shares().changed, 0);  // nothing moved
  f.move_adapters(0.5f, 1);
  qat.prepare(f.cpu.ctx, 2);
  EXPECT_GT(qat.shares().changed, 0.01);
  EXPECT_LT(qat.shares().changed, 1.0);
}

TEST(Qat, RefusesAGroupThatDoesNotDivideARow) {
  Fixture f;  // rows of 64 and 96 elements
  EXPECT_THROW(f.controller("int4-gptq"), BadRecipe);
}

TEST(Qat, NonFiniteWeightsStopTheRun) {
  Fixture f;
  QatController qat = f.controller("q4_0");
  f.adapters->entries()[3].a.span<float>()[0] = std::numeric_limits<float>::infinity();
  f.adapters->entries()[3].b.span<float>()[0] = 1.0f;
  EXPECT_THROW(qat.prepare(f.cpu.ctx, 0), Diverged);
}

/// The stored scales of an iq4_nl tensor: two bytes of each block of 18.
std::vector<std::byte> scales_of(const model::EncodedWeights& weights, std::size_t tensor) {
  std::vector<std::byte> scales;
  const auto bytes = weights.encoded(tensor).bytes;
  for (std::size_t i = 0; i < bytes.size(); i += 18) scales.insert(scales.end(), {bytes[i], bytes[i + 1]});
  return scales;
}

TEST(Qat, SearchedParametersAreFitEveryEighthStepAndNotOverTheLastTenth) {
  Fixture f;
  QatController qat = f.controller("iq4_nl");
  const model::TensorTable& table = f.reader->table();
  qat.prepare(f.cpu.ctx, 0);
  EXPECT_EQ(qat.checksum(), f.checksum_of_merged("iq4_nl"));  // the first codes are fit
  EXPECT_EQ(std::ssize(qat.kept(0)), 7 * table.layers());
  EXPECT_NE(qat.cadence().find("every 8 steps"), std::string::npos) << qat.cadence();
  for (std::int64_t step = 1; step < 100; ++step) {
    std::vector<std::vector<std::byte>> before;
    for (const std::size_t tensor : qat.kept(step)) before.push_back(scales_of(*qat.encoded(), tensor));
    f.move_adapters(0.05f, static_cast<std::uint64_t>(step));
    qat.prepare(f.cpu.ctx, step);
    EXPECT_GT(qat.shares().changed, 0) << step;
    std::size_t i = 0;
    for (const std::size_t tensor : qat.kept(step)) {
      const bool due = step < 90 && (step + table[tensor].layer) % 8 == 0;
      EXPECT_EQ(scales_of(*qat.encoded(), tensor) != before[i++], due) << step << " " << table[tensor].hf_name;
    }
  }
}

TEST(Qat, CheapFitsAreMadeAtEveryStepUnlessAskedOtherwise) {
  Fixture f;
  QatController qat = f.controller("q4_0");
  EXPECT_TRUE(qat.kept(0).empty());
  EXPECT_EQ(qat.cadence(), "");
}

}  // namespace
}  // namespace temper::train
