// Adapters on a frozen NF4 base, against peft and bitsandbytes in f32 (tests/data/qlora;
// tools/oracles/make_qlora_golden.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "files/safetensors.h"
#include "model/base_format.h"
#include "model/peft.h"
#include "model/transformer.h"
#include "ops/cpu/cpu_backend.h"

namespace temper::model {
namespace {

const std::string kData = std::string(TEMPER_TEST_DATA) + "/qlora";

/// Worst |a - b| against the root mean square of b. Sums of up to 128 f32 products in another order, through two blocks:
/// 1e-4 is about a thousand eps, as in hf_parity_test.cpp.
void expect_close(std::span<const float> a, std::span<const float> b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  double squares = 0, worst = 0;
  for (const float x : b) squares += double{x} * x;
  const double scale = std::sqrt(squares / static_cast<double>(b.size())) + 1e-12;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double error = std::abs(double{a[i]} - b[i]) / scale;
    if (!(error <= worst)) worst = error;
  }
  EXPECT_LT(worst, 1e-4) << what;
}

struct Qlora : testing::Test {
  Arena arena{std::size_t{1} << 32};
  ExecContext ctx{&ops::cpu_backend(), &arena, DType::F32};
  files::SafetensorsFile expected{kData + "/parity.safetensors"};

  std::span<const float> floats(const std::string& name) const {
    const auto& tensor = expected.at(name);
    return {reinterpret_cast<const float*>(tensor.data.data()), tensor.data.size() / sizeof(float)};
  }
  std::vector<std::int32_t> ints(const std::string& name) const {
    const auto& tensor = expected.at(name);
    std::vector<std::int64_t> wide(tensor.data.size() / sizeof(std::int64_t));
    std::memcpy(wide.data(), tensor.data.data(), tensor.data.size());
    return {wide.begin(), wide.end()};
  }

  void expect_parity(const CheckpointReader& reader) {
    BaseWeights base(reader, DType::F32);
    Adapters adapters = load_peft(reader.table(), kData + "/adapter");
    adapters.prepare(ctx, base);
    Transformer model(reader.arch(), base, &adapters);
    const std::vector<std::int32_t> ids = ints("input_ids"), labels = ints("labels");
    std::vector<std::int32_t> positions(ids.size()), targets(labels.begin() + 1, labels.end());
    std::iota(positions.begin(), positions.end(), 0);
    targets.push_back(-1);
    for (std::int32_t& target : targets) target = std::max(target, -1);
    const ops::AttentionSpan span{0, static_cast<std::int32_t>(ids.size()), 0, static_cast<std::int32_t>(ids.size())};
    const BatchView batch{ids, positions, targets, {&span, 1}};
    std::vector<float> logits;
    model.logits(ctx, batch, positions, [&](std::size_t, const TensorView& chunk) {
      const auto values = chunk.span<const float>();
      logits.insert(logits.end(), values.begin(), values.end());
    });
    expect_close(logits, floats("logits"), "logits");
    const auto labelled = std::ranges::count_if(targets, [](std::int32_t t) { return t >= 0; });
    for (const Recompute recompute : {Recompute::None, Recompute::Block}) {
      model.set_recompute(recompute);
      for (const Adapters::Entry& entry : adapters.entries())
        for (const TensorView& gradient : {entry.grad_a, entry.grad_b}) ops::zero(ctx, gradient);
      const double sum = model.forward_backward(ctx, batch, 1.0f / static_cast<float>(labelled));
      EXPECT_NEAR(sum / static_cast<double>(labelled), floats("loss")[0], 4e-6);
      for (const Adapters::Entry& entry : adapters.entries()) {
        std::string name = "grad." + reader.table()[entry.tensor].hf_name;
        name.resize(name.size() - std::string(".weight").size());
        expect_close(entry.grad_a.span<const float>(), floats(name + ".lora_A"), name + ".lora_A");
        expect_close(entry.grad_b.span<const float>(), floats(name + ".lora_B"), name + ".lora_B");
      }
    }
  }
};

TEST_F(Qlora, GradientsOnBitsandbytesOwnBytes) {
  const auto reader = CheckpointReader::open(kData + "/nf4");
  ASSERT_TRUE(is_quantized(reader));
  expect_parity(reader);
}

TEST_F(Qlora, QuantizingWhenOpenedGivesThoseBytes) {
  const auto stored = CheckpointReader::open(kData + "/nf4"), made = open_base(ctx, kData + "/base", "nf4-dq");
  int quantized = 0;
  for (std::size_t i = 0; i < stored.table().size(); ++i) {
    const StoredTensor a = stored.stored(i), b = made.stored(i);
    EXPECT_EQ(a.encoded.codec, b.encoded.codec) << stored.table()[i].hf_name;
    EXPECT_TRUE(std::ranges::equal(a.bytes(), b.bytes())) << stored.table()[i].hf_name;
    quantized += a.encoded.codec != nullptr;
  }
  EXPECT_EQ(quantized, 14);
  expect_parity(made);
  // An NF4 code stands for about a tenth of a block's absmax: weights of a bell shape end up some 9 % away.
  const double error = relative_error(made, CheckpointReader::open(kData + "/base"));
  EXPECT_GT(error, 0.07);
  EXPECT_LT(error, 0.11);
}

}  // namespace
}  // namespace temper::model
