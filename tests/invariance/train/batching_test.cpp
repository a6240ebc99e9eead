// How a step is cut, stored and computed does not change its gradients: not a bit, or within a bound that is stated here.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/parallel.h"
#include "eval/score.h"
#include "model/base_format.h"
#include "ops/dry_run.h"
#include "train/qat.h"
#include "train_fixture.h"

namespace temper::train {
namespace {

struct Setting {
  DType compute = DType::F32;
  const char* scheme = nullptr;
  bool full = false;  ///< Every weight in place of adapters.
  const char* base = "stored";
  double dropout = 0;
  bool dora = false;
};

/// A tiny model with adapters that are not zero, and twelve documents.
struct Model {
  testing::TemporaryFolder folder;
  testing::CpuContext cpu;
  std::optional<model::CheckpointReader> reader;
  std::optional<model::BaseWeights> base;
  std::optional<model::Adapters> adapters;
  std::optional<model::TrainedWeights> weights;
  std::vector<text::Sample> samples = testing::counting_samples(12, 96, 21);
  const quant::Scheme* scheme;

  explicit Model(const Setting& setting) : cpu(setting.compute) {
    testing::write_random_model(folder / "model");
    reader.emplace(model::open_base(cpu.ctx, folder / "model", setting.base));
    base.emplace(*reader, cpu.ctx.compute);
    scheme = setting.scheme ? &quant::scheme(setting.scheme) : nullptr;
    if (setting.full) {
      weights.emplace(*reader, *base, model::all_tensors(reader->table()), base->storage());
      return;
    }
    model::LoraConfig config{.r = 4, .alpha = 8, .target_modules = {}};
    config.dropout = setting.dropout;
    config.dora = setting.dora;
    adapters.emplace(reader->table(), config, 3);
    adapters->init_magnitudes(cpu.ctx, *base);
    Rng rng(17);
    for (const auto& entry : adapters->entries())
      for (float& x : entry.b.span<float>()) x = 0.05f * (2 * rng.uniform() - 1);
  }

  /// Gradients of one step over all twelve documents, packed into sequences of `seq_len` and cut into micro-batches.
  std::vector<float> gradients(std::int64_t micro_batches, std::int64_t seq_len = 64, bool packing = true,
                               model::Recompute recompute = model::Recompute::None) {
    const Masters masters{weights ? nullptr : &*adapters, weights ? &*weights : nullptr};
    const model::ParameterArray& array = weights ? weights->array() : adapters->array();
    QatController qat(cpu.ctx, *base, masters, reader->arch(), scheme, {}, 100, recompute);
    text::PackOptions options;
    options.seq_len = seq_len;
    options.packing = packing;
    options.shuffle = false;
    text::Packer packer(samples, options);
    const text::StepBatches step = packer.next_step(packer.size(), micro_batches);
    ops::zero(cpu.ctx, array.gradients());
    for (const text::Batch& batch : step.micro_batches) {
      const eval::ModelBatch model_batch(batch);
      qat.prepare(cpu.ctx, 0)
          .forward_backward(cpu.ctx, model_batch.view(), 1.0f / static_cast<float>(step.labelled),
                            weights ? &weights->gradients() : nullptr);
    }
    const auto span = array.gradients().span<float>();
    return {span.begin(), span.end()};
  }
};

double norm(const std::vector<float>& x) {
  double sum = 0;
  for (const float v : x) sum += static_cast<double>(v) * static_cast<double>(v);
  return std::sqrt(sum);
}

/// ‖a − b‖ / ‖b‖
double relative_distance(const std::vector<float>& a, const std::vector<float>& b) {
  std::vector<float> difference(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) difference[i] = a[i] - b[i];
  return norm(difference) / norm(b);
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Another cut of the rows changes the order in which f32 sums of T ≈ 240 tokens are formed, and may change that of the
/// products' inner sums (K ≤ 96): a relative error of at most (T + 2·K·layers·…) roundings, of which random signs leave
/// about the square root. The bound allows all T of them, 2⁻²⁴ each. With bf16 operands such a difference can move an
/// activation's rounding (2⁻⁹ at most): the bound is one such rounding of everything.
double bound(DType compute) { return compute == DType::F32 ? 256 * 0x1p-24 : 0x1p-9; }

class Batching : public ::testing::TestWithParam<Setting> {};

TEST_P(Batching, MicroBatches) {
  Model m(GetParam());
  const auto whole = m.gradients(1);
  ASSERT_GT(norm(whole), 1e-3);
  for (const std::int64_t parts : {2, 4})
    EXPECT_LE(relative_distance(m.gradients(parts), whole), bound(GetParam().compute)) << parts;
}

/// What dropout drops is a matter of a token's number in the step, which another packing changes.
class Packing : public Batching {};

TEST_P(Packing, IsAsGoodAsEachDocumentAlone) {
  Model m(GetParam());
  const auto packed = m.gradients(1);
  EXPECT_LE(relative_distance(m.gradients(12, 64, false), packed), bound(GetParam().compute));
  EXPECT_LE(relative_distance(m.gradients(2, 128), packed), bound(GetParam().compute));
}

TEST_P(Batching, RepeatedIsTheSameToTheBit) {
  Model m(GetParam());
  EXPECT_TRUE(same_bits(m.gradients(2), m.gradients(2)));
}

TEST_P(Batching, RecomputeIsTheSameToTheBit) {
  Model m(GetParam());
  const auto kept = m.gradients(2, 64, true, model::Recompute::None);
  for (const auto recompute : {model::Recompute::Selective, model::Recompute::Block, model::Recompute::Offload})
    EXPECT_TRUE(same_bits(m.gradients(2, 64, true, recompute), kept)) << static_cast<int>(recompute);
}

/// A dry run tells what a pass takes of its workspace, to the byte, and leaves the gradients alone.
TEST_P(Batching, DryRunKnowsTheWorkspace) {
  Model m(GetParam());
  const Masters masters{m.weights ? nullptr : &*m.adapters, m.weights ? &*m.weights : nullptr};
  const text::Packer packer(m.samples, {.seq_len = 128});
  const eval::ModelBatch batch(packer.sequence(0));
  std::vector<std::size_t> peaks;
  for (const auto recompute :
       {model::Recompute::None, model::Recompute::Selective, model::Recompute::Block, model::Recompute::Offload}) {
    QatController qat(m.cpu.ctx, *m.base, masters, m.reader->arch(), m.scheme, {}, 100, recompute);
    const auto pass = [&](const ExecContext& ctx, model::Transformer& transformer) {
      transformer.forward_backward(ctx, batch.view(), 1.0f, m.weights ? &m.weights->gradients() : nullptr);
    };
    const TensorView gradients = (m.weights ? m.weights->array() : m.adapters->array()).gradients();
    ops::zero(m.cpu.ctx, gradients);
    Arena none;
    const ExecContext dry = ops::dry_run(m.cpu.ctx, none);
    pass(dry, qat.dry(dry, 0));
    EXPECT_EQ(ops::sum_of_squares(m.cpu.ctx, gradients), 0.0);
    Arena arena(std::size_t{1} << 30);
    ExecContext real = m.cpu.ctx;
    real.workspace = &arena;
    pass(real, qat.prepare(real, 0));
    EXPECT_GT(ops::sum_of_squares(m.cpu.ctx, gradients), 0.0);
    EXPECT_EQ(none.peak(), arena.peak()) << static_cast<int>(recompute);
    peaks.push_back(arena.peak());
  }
  EXPECT_TRUE(std::ranges::is_sorted(peaks, std::greater())) << "each mode takes less than the one before";
}

TEST_P(Batching, ThreadsAreTheSameToTheBit) {
  Model m(GetParam());
  const int threads = num_threads();
  set_num_threads(1);
  const auto one = m.gradients(2);
  set_num_threads(2);
  const auto two = m.gradients(2);
  set_num_threads(threads);
  EXPECT_TRUE(same_bits(one, two)) << "relative distance " << relative_distance(one, two);
}

std::string setting_name(const ::testing::TestParamInfo<Setting>& test) {
  std::string name = test.param.compute == DType::F32 ? "f32_" : "bf16_";
  name += test.param.scheme ? test.param.scheme : "16_bit";
  name += test.param.full ? "_full" : std::string_view(test.param.base) == "stored" ? "_lora" : "_qlora";
  if (test.param.dropout > 0) name += "_dropout";
  if (test.param.dora) name += "_dora";
  std::ranges::replace(name, '-', '_');
  return name;
}

const auto kWithoutDropout = ::testing::Values(
    Setting{DType::F32, nullptr}, Setting{DType::BF16, nullptr}, Setting{DType::F32, "q4_0"},
    Setting{DType::BF16, "int4-sym-g32"}, Setting{DType::F32, "int8-int4"}, Setting{DType::BF16, "fp8-fp8"},
    Setting{DType::F32, "nvfp4"}, Setting{DType::F32, nullptr, true}, Setting{DType::BF16, "q4_0", true},
    Setting{DType::BF16, nullptr, false, "int4-asym-g32"}, Setting{DType::F32, "q4_0", false, "int4-asym-g32"},
    Setting{DType::F32, nullptr, false, "stored", 0, true}, Setting{DType::BF16, "q4_0", false, "int4-asym-g32", 0, true});
INSTANTIATE_TEST_SUITE_P(Settings, Packing, kWithoutDropout, setting_name);
INSTANTIATE_TEST_SUITE_P(Settings, Batching, kWithoutDropout, setting_name);
INSTANTIATE_TEST_SUITE_P(Dropout, Batching, ::testing::Values(Setting{DType::F32, nullptr, false, "stored", 0.3}),
                         setting_name);

class Threads : public ::testing::TestWithParam<recipe::TrainMode> {};

TEST_P(Threads, AWholeRunIsTheSameToTheBit) {
  testing::TinyRun tiny({}, "q4_0");
  tiny.recipe.train.mode = GetParam();
  testing::CpuContext cpu;
  const int threads = num_threads();
  set_num_threads(1);
  train(cpu.ctx, tiny.to("one"), tiny.data);
  set_num_threads(2);
  train(cpu.ctx, tiny.to("two"), tiny.data);
  set_num_threads(threads);
  EXPECT_EQ(tiny.trained("one"), tiny.trained("two"));
}

INSTANTIATE_TEST_SUITE_P(Modes, Threads, ::testing::Values(recipe::TrainMode::Lora, recipe::TrainMode::Full));

}  // namespace
}  // namespace temper::train
