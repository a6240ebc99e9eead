// Logits, loss and every gradient of tiny random models against transformers in f32 (tests/data/hf;
// tools/oracles/make_hf_parity.py makes those named odd_*).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "files/safetensors.h"
#include "model/checkpoint_reader.h"
#include "model/trained_weights.h"
#include "model/transformer.h"
#include "model/weights.h"
#include "ops/cpu/cpu_backend.h"

namespace temper::model {
namespace {

/// The file's documents in one flat stream: its rows, or what its positions part.
struct FlatBatch {
  std::vector<std::int32_t> tokens, positions, targets;
  std::vector<ops::AttentionSpan> spans;

  FlatBatch(const std::vector<std::int32_t>& ids, const std::vector<std::int32_t>& labels,
            const std::vector<std::int32_t>& position_ids)
      : tokens(ids), positions(position_ids) {
    const auto n = static_cast<std::int32_t>(ids.size());
    for (std::int32_t begin = 0, end = 1; begin < n; begin = end++) {
      while (end < n && positions[static_cast<std::size_t>(end)] != 0) ++end;
      spans.push_back({begin, end, begin, end});
      for (std::int32_t i = begin + 1; i < end; ++i) targets.push_back(std::max(-1, labels[static_cast<std::size_t>(i)]));
      targets.push_back(-1);
    }
  }
  BatchView view() const { return {tokens, positions, targets, spans}; }
  /// Tokens of the first document.
  std::size_t first_document() const { return static_cast<std::size_t>(spans[0].query_end); }
};

struct Parity : testing::TestWithParam<std::string> {
  std::string folder = std::string(TEMPER_TEST_DATA) + "/hf/" + GetParam();
  CheckpointReader reader = CheckpointReader::open(folder);
  files::SafetensorsFile expected{folder + "/parity.safetensors"};
  Arena arena{std::size_t{1} << 34};
  ExecContext ctx{&ops::cpu_backend(), &arena, DType::F32};
  BaseWeights weights{reader, DType::F32};
  Transformer model{reader.arch(), weights};

  std::span<const float> floats(const std::string& name) const {
    const auto& t = expected.at(name);
    return {reinterpret_cast<const float*>(t.data.data()), t.data.size() / sizeof(float)};
  }
  std::span<const float> expected_gradient(const TensorInfo& info) const {
    const auto stored = floats("grad." + info.stored_hf_name());
    if (!info.fused) return stored;
    const auto cols = static_cast<std::size_t>(info.shape[1]);
    return stored.subspan(static_cast<std::size_t>(info.fused->first_row) * cols,
                          static_cast<std::size_t>(info.shape[0]) * cols);
  }
  std::vector<std::int32_t> ints(const std::string& name) const {
    const auto& t = expected.at(name);
    std::vector<std::int64_t> wide(t.data.size() / sizeof(std::int64_t));
    std::memcpy(wide.data(), t.data.data(), t.data.size());
    return {wide.begin(), wide.end()};
  }
  FlatBatch batch() const {
    const auto ids = ints("input_ids");
    if (expected.find("position_ids")) return {ids, ints("labels"), ints("position_ids")};
    const auto length = static_cast<std::int32_t>(expected.at("input_ids").shape[1]);
    std::vector<std::int32_t> positions;
    for (std::size_t i = 0; i < ids.size(); ++i) positions.push_back(static_cast<std::int32_t>(i) % length);
    return {ids, ints("labels"), positions};
  }
};

double norm(std::span<const float> x) {
  double sum = 0;
  for (const float v : x) sum += double{v} * v;
  return std::sqrt(sum);
}

/// |a - b| against the length of b: sums of K f32 products differ by a few K·eps in another order, and two blocks of K up to
/// 80 pass that on; 1e-5 is about 100 eps.
void expect_close(std::span<const float> a, std::span<const float> b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  const double scale = norm(b) / std::sqrt(static_cast<double>(b.size())) + 1e-12;
  std::size_t worst = 0;
  double worst_error = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double error = std::abs(double{a[i]} - b[i]) / scale;
    if (!(error <= worst_error)) worst_error = error, worst = i;
  }
  EXPECT_LT(worst_error, 1e-5 * 10) << what << " worst at " << worst << ": " << a[worst] << " against " << b[worst];
}

TEST_P(Parity, Logits) {
  const FlatBatch batch = this->batch();
  std::vector<std::int32_t> all(batch.tokens.size());
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::int32_t>(i);
  std::vector<float> logits;
  model.logits(ctx, batch.view(), all, [&](std::size_t, const TensorView& chunk) {
    const auto values = chunk.span<const float>();
    logits.insert(logits.end(), values.begin(), values.end());
  });
  expect_close(logits, floats("logits"), "logits");
}

TEST_P(Parity, LossAndGradients) {
  const FlatBatch batch = this->batch();
  std::int64_t labelled = 0;
  for (const auto t : batch.targets) labelled += t >= 0;
  for (const Recompute recompute : {Recompute::None, Recompute::Block}) {
    model.set_recompute(recompute);
    std::vector<Tensor> storage;
    BaseGradients gradients;
    for (const TensorInfo& info : reader.table().all())
      gradients.push_back(storage.emplace_back(DType::F32, info.shape, true));
    const double sum = model.forward_backward(ctx, batch.view(), 1.0f / static_cast<float>(labelled), &gradients);
    EXPECT_NEAR(sum / static_cast<double>(labelled), floats("loss")[0], 2e-6);
    for (std::size_t i = 0; i < gradients.size(); ++i)
      expect_close(gradients[i].span<const float>(), expected_gradient(reader.table()[i]), reader.table()[i].hf_name);
  }
}

/// The same through what full fine-tuning trains: masters of every tensor, their operands, and their flat gradients.
TEST_P(Parity, GradientsOfTrainedWeights) {
  const FlatBatch batch = this->batch();
  const auto labelled = std::ranges::count_if(batch.targets, [](std::int32_t t) { return t >= 0; });
  TrainedWeights trained(reader, weights, all_tensors(reader.table()), reader.arch().dtype);
  trained.prepare(ctx);
  const double sum = model.forward_backward(ctx, batch.view(), 1.0f / static_cast<float>(labelled), &trained.gradients());
  EXPECT_NEAR(sum / static_cast<double>(labelled), floats("loss")[0], 2e-6);
  for (std::size_t i = 0; i < reader.table().size(); ++i) {
    const TensorInfo& info = reader.table()[i];
    EXPECT_EQ(trained.array().segment(i).name, info.hf_name);
    EXPECT_EQ(trained.array().segment(i).weight_decay, info.shape.rank() == 2) << info.hf_name;
    expect_close(trained.array().gradient(i).span<const float>(), expected_gradient(info), info.hf_name);
  }
}

/// Generation with a cache gives the logits of the whole sequence, token by token and in chunks.
TEST_P(Parity, CacheEqualsWholeSequence) {
  const auto ids = ints("input_ids");
  const std::size_t length = batch().first_document(), vocab = static_cast<std::size_t>(reader.arch().vocab_size);
  // Keys that were turned while the sequence was short keep the short factors, in transformers, too.
  const RopeSpec& rope = reader.arch().rope;
  if (rope.depends_on_length() && static_cast<std::int64_t>(length) > rope.original_max_positions) return;
  for (const std::size_t chunk : {std::size_t{1}, std::size_t{5}}) {
    KvCache cache(reader.arch(), DType::F32, static_cast<std::int64_t>(length));
    std::vector<float> out(vocab);
    for (std::size_t at = 0; at < length; at += chunk) {
      const std::size_t n = std::min(chunk, length - at);
      model.step(ctx, cache, std::span(ids).subspan(at, n), out);
      expect_close(out, floats("logits").subspan((at + n - 1) * vocab, vocab), "logits at " + std::to_string(at + n - 1));
    }
    EXPECT_THROW(model.step(ctx, cache, std::span(ids).first(1), out), Unsupported);
  }
}

INSTANTIATE_TEST_SUITE_P(Hf, Parity,
                         testing::Values("llama_untied", "llama31_tied", "mistral_swa", "odd_untied", "odd_tied",
                                         "odd_packed", "odd_packed_swa", "family_qwen2", "family_qwen3", "family_gemma2",
                                         "family_gemma3", "family_smollm3", "family_ministral", "family_yarn", "family_phi3",
                                         "family_phi3_short"),
                         [](const auto& model) { return model.param; });

}  // namespace
}  // namespace temper::model
