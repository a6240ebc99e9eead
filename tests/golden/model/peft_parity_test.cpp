// Options of adapters and what is trained beside them, against peft: values as it saved them, loss and every gradient in f32
// (tools/oracles/make_peft_options_golden.py, make_peft_beside_golden.py).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "files/safetensors.h"
#include "model/peft.h"
#include "model/trained_weights.h"
#include "model/transformer.h"
#include "ops/cpu/cpu_backend.h"

namespace temper::model {
namespace {

const std::filesystem::path kData = TEMPER_TEST_DATA;

template <typename T>
std::vector<T> values(const files::SafetensorsFile& file, const std::string& name) {
  const auto& data = file.at(name).data;
  std::vector<T> out(data.size() / sizeof(T));
  std::memcpy(out.data(), data.data(), data.size());
  return out;
}

/// As in hf_parity_test.cpp: f32 sums in another order, passed on through two blocks.
void expect_close(std::span<const float> found, const std::vector<float>& expected, const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  double squares = 0;
  for (const float x : expected) squares += double{x} * x;
  const double bound = 1e-4 * std::sqrt(squares / static_cast<double>(expected.size())) + 1e-12;
  for (std::size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(found[i], expected[i], bound) << what << "[" << i << "]";
}

/// One sequence with its labels, as the oracles write it.
struct Sequence {
  std::vector<std::int32_t> tokens, positions, targets;
  ops::AttentionSpan span;
  explicit Sequence(const files::SafetensorsFile& parity) {
    const auto ids = values<std::int64_t>(parity, "input_ids"), labels = values<std::int64_t>(parity, "labels");
    tokens.assign(ids.begin(), ids.end());
    positions.resize(ids.size());
    std::iota(positions.begin(), positions.end(), 0);
    for (std::size_t t = 1; t < labels.size(); ++t) targets.push_back(std::max(-1, static_cast<std::int32_t>(labels[t])));
    targets.push_back(-1);
    const auto n = static_cast<std::int32_t>(ids.size());
    span = {0, n, 0, n};
  }
  BatchView view() const { return {tokens, positions, targets, {&span, 1}}; }
  float labelled() const {
    return static_cast<float>(std::ranges::count_if(targets, [](std::int32_t t) { return t >= 0; }));
  }
};

void expect_adapter_gradients(const Adapters& adapters, const files::SafetensorsFile& parity) {
  for (std::size_t s = 0; s < adapters.array().size(); ++s) {
    const std::string& name = adapters.array().segment(s).name;
    expect_close(adapters.array().gradient(s).span<float>(), values<float>(parity, "grad.base_model.model." + name), name);
  }
}

/// Ranks, alphas and layers of their own; DoRA (tools/oracles/make_peft_options_golden.py).
class PeftOptions : public ::testing::TestWithParam<const char*> {};

TEST_P(PeftOptions, LossAndGradientsEqualPefts) {
  const CheckpointReader reader = CheckpointReader::open(kData / "hf" / "family_qwen2");
  const files::SafetensorsFile parity(kData / "peft" / GetParam() / "parity.safetensors");
  Arena arena(std::size_t{1} << 30);
  const ExecContext ctx{&ops::cpu_backend(), &arena, DType::F32};
  BaseWeights base(reader, DType::F32);
  Adapters adapters = load_peft(reader.table(), kData / "peft" / GetParam());
  adapters.prepare(ctx, base);
  Transformer model(reader.arch(), base, &adapters);
  const Sequence sequence(parity);
  const double sum = model.forward_backward(ctx, sequence.view(), 1.0f / sequence.labelled());
  EXPECT_NEAR(sum / static_cast<double>(sequence.labelled()), values<float>(parity, "loss")[0], 2e-6);
  expect_adapter_gradients(adapters, parity);
}

INSTANTIATE_TEST_SUITE_P(Variants, PeftOptions, ::testing::Values("patterns", "dora"),
                         [](const auto& test) { return std::string(test.param); });

TEST(PeftParity, BiasesAndATiedTableBesideAdapters) {
  const CheckpointReader reader = CheckpointReader::open(kData / "hf" / "family_qwen2");
  const files::SafetensorsFile parity(kData / "peft" / "beside" / "parity.safetensors");
  Arena arena(std::size_t{1} << 30);
  const ExecContext ctx{&ops::cpu_backend(), &arena, DType::F32};
  BaseWeights base(reader, DType::F32);
  std::vector<Tensor> beside;
  Adapters adapters = load_peft(reader.table(), kData / "peft" / "beside", &beside);
  EXPECT_EQ(adapters.config().bias, LoraBias::All);
  TrainedWeights weights(reader, base, tensors_beside(reader.table(), adapters), DType::F32);
  const std::vector<TensorView> masters = weights.masters();
  std::size_t count = 0;
  for (std::size_t i = 0; i < beside.size(); ++i) {
    ASSERT_EQ(static_cast<bool>(beside[i]), static_cast<bool>(masters[i]));
    if (!beside[i]) continue;
    ops::convert(ctx, beside[i], masters[i]);
    ++count;
  }
  EXPECT_EQ(count, 1u + 2 * 3);  // the table; q, k and v of two layers
  adapters.prepare(ctx, base);
  weights.prepare(ctx);

  const Sequence sequence(parity);
  Transformer model(reader.arch(), base, &adapters);
  const double sum = model.forward_backward(ctx, sequence.view(), 1.0f / sequence.labelled(), &weights.gradients());
  EXPECT_NEAR(sum / static_cast<double>(sequence.labelled()), values<float>(parity, "loss")[0], 2e-6);

  const std::string prefix = "grad.base_model.model.";
  for (std::size_t s = 0; s < weights.array().size(); ++s) {
    std::string name = weights.array().segment(s).name;
    if (const auto at = name.rfind(".bias"); at != std::string::npos && name.find("v_proj") == std::string::npos)
      name.insert(at, ".base_layer");
    expect_close(weights.array().gradient(s).span<float>(), values<float>(parity, prefix + name), name);
  }
  expect_adapter_gradients(adapters, parity);
}

}  // namespace
}  // namespace temper::model
