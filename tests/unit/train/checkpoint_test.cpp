// Checkpoints: what is written comes back, anything damaged is noticed, and killed writes leave no trace.
#include "train/checkpoint.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "temporary_folder.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using testing::slurp;
using testing::spill;

constexpr std::int64_t kSize = 37;

/// A state whose every figure depends on its step.
struct Written {
  Tensor parameters{DType::F32, {kSize}}, first{DType::F32, {kSize}}, second{DType::F32, {kSize}};
  std::vector<std::byte> codes{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}, std::byte{5}, std::byte{6}};
  CheckpointState state;

  explicit Written(std::int64_t step) {
    float x = static_cast<float>(step);
    for (Tensor* t : {&parameters, &first, &second})
      for (float& value : t->span<float>()) value = x += 0.37f;
    state = {.step = step,
             .cursor = {step / 10, step % 10},
             .tokens = 100 * step,
             .seconds = 0.1 * static_cast<double>(step),
             .last_loss = 1.0 / 3.0,
             .shares = {0.01, 0.002},
             .codes_checksum = "00ff",
             .base_fingerprint = "base",
             .data_fingerprint = "data",
             .compute = "F32",
             .isa = "avx2",
             .recipe_yaml = "optim:\n  lr: 4e-4\n",
             .metrics = {{"held_out", files::Json::array()}},
             .tensors = {{"some.parameters", parameters}, {"some.exp_avg", first}, {"some.exp_avg_sq", second}},
             .codes = {{"model.layers.0.mlp.up_proj.weight", 2, codes}}};
  }
};

std::vector<float> values(const TensorView& view) { return {view.span<float>().begin(), view.span<float>().end()}; }

/// Collects warnings while it lives.
struct Warnings {
  std::vector<std::string> lines;
  Warnings() {
    set_log_sink([this](LogLevel level, std::string_view line) {
      if (level == LogLevel::Warning) lines.emplace_back(line);
    });
  }
  ~Warnings() { set_log_sink({}); }
};

TEST(Checkpoint, ComesBackWhole) {
  testing::TemporaryFolder folder;
  const Written written(25);
  const CheckpointStore store(folder / "checkpoints", 2);
  store.save(written.state);
  const auto loaded = store.load_newest();
  ASSERT_TRUE(loaded);
  const CheckpointState &a = written.state, &b = loaded->state;
  EXPECT_EQ(b.step, 25);
  EXPECT_EQ(b.cursor, a.cursor);
  EXPECT_EQ(b.tokens, a.tokens);
  EXPECT_EQ(b.seconds, a.seconds);
  EXPECT_EQ(b.last_loss, a.last_loss);
  EXPECT_EQ(b.shares.changed, a.shares.changed);
  EXPECT_EQ(b.shares.saturated, a.shares.saturated);
  EXPECT_EQ(b.codes_checksum, a.codes_checksum);
  EXPECT_EQ(b.base_fingerprint, a.base_fingerprint);
  EXPECT_EQ(b.data_fingerprint, a.data_fingerprint);
  EXPECT_EQ(b.compute, a.compute);
  EXPECT_EQ(b.isa, a.isa);
  EXPECT_EQ(b.recipe_yaml, a.recipe_yaml);
  EXPECT_EQ(b.metrics, a.metrics);
  ASSERT_EQ(b.codes.size(), 1u);
  EXPECT_EQ(b.codes[0].name, a.codes[0].name);
  EXPECT_EQ(b.codes[0].rows, 2);
  EXPECT_TRUE(std::ranges::equal(b.codes[0].bytes, a.codes[0].bytes));
  ASSERT_EQ(b.tensors.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(b.tensors[i].name, a.tensors[i].name);
    EXPECT_EQ(values(b.tensors[i].tensor), values(a.tensors[i].tensor));
  }
}

TEST(Checkpoint, EveryFlippedByteIsNoticed) {
  testing::TemporaryFolder folder;
  const CheckpointStore store(folder / "checkpoints", 2);
  store.save(Written(7).state);
  for (const char* name : {"manifest.json", "state.json", "recipe.yaml", "state.safetensors"}) {
    const fs::path path = store.path_of(7) / name;
    const std::string whole = slurp(path);
    for (std::size_t i = 0; i < whole.size(); ++i) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
      spill(path, damaged);
      EXPECT_THROW(CheckpointStore::load(store.path_of(7)), Error) << name << " byte " << i;
    }
    spill(path, whole);
  }
  EXPECT_EQ(CheckpointStore::load(store.path_of(7)).state.step, 7);
}

TEST(Checkpoint, TruncatedGrownOrMissingFilesAreNoticed) {
  testing::TemporaryFolder folder;
  const CheckpointStore store(folder / "checkpoints", 2);
  store.save(Written(7).state);
  for (const char* name : {"manifest.json", "state.json", "recipe.yaml", "state.safetensors"}) {
    const fs::path path = store.path_of(7) / name;
    const std::string whole = slurp(path);
    for (const std::string& damaged : {std::string(), whole.substr(0, whole.size() / 2), whole + "x"}) {
      spill(path, damaged);
      EXPECT_THROW(CheckpointStore::load(store.path_of(7)), BadFile) << name << " of " << damaged.size() << " bytes";
    }
    fs::remove(path);
    EXPECT_THROW(CheckpointStore::load(store.path_of(7)), BadFile) << name << " missing";
    spill(path, whole);
  }
}

TEST(Checkpoint, ARenamedFolderIsNoticed) {
  testing::TemporaryFolder folder;
  const CheckpointStore store(folder / "checkpoints", 2);
  store.save(Written(7).state);
  fs::rename(store.path_of(7), store.path_of(9));
  EXPECT_THROW(store.load_newest(), BadFile);
}

TEST(Checkpoint, TheOneBeforeACorruptOneIsUsedAndSaidSo) {
  testing::TemporaryFolder folder;
  const CheckpointStore store(folder / "checkpoints", 3);
  for (const std::int64_t step : {5, 10, 15}) store.save(Written(step).state);
  const fs::path victim = store.path_of(15) / "state.safetensors";
  std::string bytes = slurp(victim);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  spill(victim, bytes);
  Warnings warnings;
  const auto loaded = store.load_newest();
  ASSERT_TRUE(loaded);
  EXPECT_EQ(loaded->state.step, 10);
  ASSERT_EQ(warnings.lines.size(), 1u);
  EXPECT_NE(warnings.lines[0].find(victim.string()), std::string::npos) << warnings.lines[0];

  // Going on from step 10, the abandoned step 15 must not count as the newest.
  store.save(Written(11).state);
  EXPECT_EQ(store.steps(), (std::vector<std::int64_t>{5, 10, 11}));
}

TEST(Checkpoint, NoneIsDifferentFromNoneWhole) {
  testing::TemporaryFolder folder;
  const CheckpointStore store(folder / "checkpoints", 2);
  EXPECT_FALSE(store.load_newest());
  store.save(Written(5).state);
  fs::remove(store.path_of(5) / "manifest.json");
  EXPECT_THROW(store.load_newest(), BadFile);
}

TEST(Checkpoint, TheLastAreKept) {
  testing::TemporaryFolder folder;
  const CheckpointStore store(folder / "checkpoints", 2);
  for (const std::int64_t step : {5, 9, 10, 100, 20}) {
    store.save(Written(step).state);
    EXPECT_EQ(store.load_newest()->state.step, step);
  }
  EXPECT_EQ(store.steps(), (std::vector<std::int64_t>{10, 20}));  // 100 was ahead of 20: an abandoned future
  store.save(Written(20).state);                                  // again, over itself
  EXPECT_EQ(store.steps(), (std::vector<std::int64_t>{10, 20}));
}

TEST(Checkpoint, LeftoversAreIgnoredAndRemoved) {
  testing::TemporaryFolder folder;
  const CheckpointStore store(folder / "checkpoints", 2);
  store.save(Written(5).state);
  for (const char* name : {"partial-step-10", "removed-step-1", "step-x", "step-007"}) {
    fs::create_directories(folder / "checkpoints" / name);
    spill(folder / "checkpoints" / name / "state.json", "{");
  }
  EXPECT_EQ(store.load_newest()->state.step, 5);
  store.remove_leftovers();
  EXPECT_FALSE(fs::exists(folder / "checkpoints" / "partial-step-10"));
  EXPECT_FALSE(fs::exists(folder / "checkpoints" / "removed-step-1"));
  EXPECT_TRUE(fs::exists(folder / "checkpoints" / "step-x"));  // not ours
  store.save(Written(10).state);
  EXPECT_EQ(store.steps(), (std::vector<std::int64_t>{5, 10}));
}

TEST(Checkpoint, AFailedSaveLeavesTheEarlierOnes) {
  testing::TemporaryFolder folder;
  const CheckpointStore store(folder / "checkpoints", 2);
  store.save(Written(5).state);
  CheckpointState broken = Written(6).state;
  broken.tensors[2].name = "codes.x";
  EXPECT_THROW(store.save(broken), LogicError);
  EXPECT_FALSE(fs::exists(folder / "checkpoints" / "partial-step-6"));
  EXPECT_EQ(CheckpointStore::load(store.path_of(5)).state.step, 5);
}

}  // namespace
}  // namespace temper::train
