// Gradients of adapters under merged quantization-aware training, and of all weights under full, against a twin in double
// precision.
//
// The straight-through estimator takes dL/dW = dL/dWq. That is the true gradient of a surrogate whose effective weight moves
// with the merged one: Wq(A, B) = decode(round(W0)) + s·B·A − s·B0·A0. The twin evaluates this surrogate by plain loops in
// double and differentiates it by central differences; a difference quotient of the rounded weight itself would say nothing.
// Activations that a scheme rounds are straight-through alike: in the surrogate, x + (rounded(x0) − x0) with the x0 of the
// unmoved weights.
#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <map>
#include <optional>
#include <tuple>
#include <vector>

#include "double_twin.h"
#include "model/backward_taps.h"
#include "model/static_ranges.h"
#include "model/trained_weights.h"
#include "model/transformer.h"
#include "model/weights.h"
#include "quant/activations.h"

namespace temper::model {
namespace {

using namespace temper::testing;  // double_twin.h

/// Gradients of the scales of inputs' static ranges, relative to the scales, by table index.
class RangeGradients final : public BackwardTaps {
 public:
  explicit RangeGradients(const TensorTable& table) : table_(table) {}
  void input_range(int layer, Linear linear, const quant::RangeGradient& gradient) override {
    scales[table_.linear(layer, linear)] += gradient.scale;
  }
  void head_range(const quant::RangeGradient& gradient) override { scales[table_.head()] += gradient.scale; }
  std::map<std::size_t, double> scales;

 private:
  const TensorTable& table_;
};

/// Of LLM.int8: some values stay as they are, others do not.
bool has_outliers(const std::pair<const std::pair<std::size_t, std::size_t>, Twin::Rounded>& product) {
  const auto& [before, after] = product.second;
  int outliers = 0, rounded = 0;
  for (std::size_t i = 0; i < before.size(); ++i) ++(std::abs(before[i]) >= 6.0 ? outliers : rounded);
  return outliers > 0 && rounded > 0;
}

/// Compares the gradients on a random model; false, with nothing compared, where the losses differ already.
bool compare_gradients(const std::string& scheme, bool dora, std::uint64_t seed) {
  const bool outliers = scheme.find("llm-int8") != std::string::npos;
  const Model m(seed, false, outliers);
  const TensorTable& table = m.table();
  BaseWeights base(*m.reader, DType::F32);
  LoraConfig config;
  config.r = 4;
  config.alpha = 8;
  config.rank_pattern = {{"up_proj", 2}, {"layers.1.self_attn.q_proj", 6}};
  config.alpha_pattern = {{"v_proj", 3}};
  config.dora = dora;
  Adapters adapters(table, config, 3);
  adapters.init_magnitudes(m.ctx, base);
  Rng rng(5);
  for (const auto& entry : adapters.entries()) {
    for (float& b : entry.b.span<float>()) b = 0.05f * (2.0f * rng.uniform() - 1.0f);  // B of zero would leave dA zero
    if (dora)
      for (float& magnitude : entry.magnitude.span<float>()) magnitude *= 1.0f + 0.1f * (2.0f * rng.uniform() - 1.0f);
  }
  adapters.prepare(m.ctx, base);

  EncodedWeights encoded(m.ctx, base, quant::scheme(scheme), base.storage());
  encoded.encode(m.ctx, &adapters);
  // Narrow enough that a few per cent of the values are clipped.
  for (const RangeSite& site : range_sites(encoded))
    set_range(encoded, site, quant::static_range(*site.codec, -1.5f, 1.2f, DType::BF16));
  Transformer model(m.reader->arch(), encoded, &adapters, /*merged=*/true);
  RangeGradients ranges(table);
  model.set_backward_taps(&ranges);
  const Documents documents(rng);
  const double sum = model.forward_backward(m.ctx, documents.view(), 1.0f);

  Twin twin = m.twin(encoded, [&](std::size_t i, const Tensor& values) {
    const Adapters::Entry* entry = adapters.find(i);
    if (!entry) return m.reader->read(i, values);
    const Tensor merged(base.storage(), table[i].shape);  // 16-bit under the scheme: merged in the stored dtype
    ops::merge_lora(m.ctx, base.tensor(i), adapters.lora(*entry), merged);
    ops::convert(m.ctx, merged, values);
  });
  if (std::abs(twin.loss(documents.view()) - sum) > 1e-5 * std::abs(sum)) return false;
  EXPECT_TRUE(!outliers || std::ranges::any_of(twin.roundings, has_outliers)) << "every value is below the threshold";

  for (std::size_t i = 0; i < table.size(); ++i) {
    if (!quant::clips(twin.inputs[i])) continue;
    constexpr double kStep = 1e-4;
    double loss[2];
    for (const int sign : {0, 1}) {
      twin.range_moves = {{i, sign ? kStep : -kStep}};
      loss[sign] = twin.loss(documents.view());
    }
    twin.range_moves.clear();
    const double expected = (loss[1] - loss[0]) / (2 * kStep),
                 found = ranges.scales[i] * static_cast<double>(twin.inputs[i].range.scale);
    EXPECT_NE(expected, 0.0) << table[i].hf_name;
    EXPECT_NEAR(found, expected, 2e-4 * std::abs(expected) + 2e-5) << table[i].hf_name << ", its input's range";
  }

  const auto derivative = [&](const Adapters::Entry& entry, bool of_a, std::size_t row, std::size_t col) {
    // Moving A[row, col] by h moves column `col` of W by s·B[:, row]·h; moving B[row, col], row `row` by s·A[col, :]·h; both
    // times the gain of DoRA, whose norms stay.
    const std::size_t cols = static_cast<std::size_t>(entry.a.cols()), r = static_cast<std::size_t>(entry.a.rows());
    const double scale = entry.scale;
    const auto gain = [&](std::size_t n) { return dora ? static_cast<double>(entry.gain.as<float>()[n]) : 1.0; };
    return quotient(twin, entry.tensor, documents.view(), [&](Matrix& w, double h) {
      if (of_a)
        for (std::size_t n = 0; n < w.size() / cols; ++n)
          w[n * cols + col] += gain(n) * scale * h * static_cast<double>(entry.b.as<float>()[n * r + row]);
      else
        for (std::size_t k = 0; k < cols; ++k)
          w[row * cols + k] += gain(row) * scale * h * static_cast<double>(entry.a.as<float>()[col * cols + k]);
    });
  };

  // Moving m[row] by h moves that row by (W + s·B·A)/norm · h.
  for (const auto& entry : adapters.entries()) {
    if (!dora) break;
    const Tensor merged(DType::F32, table[entry.tensor].shape);
    ops::merge_lora(m.ctx, base.tensor(entry.tensor), {entry.a, entry.b, entry.scale}, merged);
    const std::size_t row = rng.below(static_cast<std::uint32_t>(merged->rows())),
                      cols = static_cast<std::size_t>(merged->cols());
    const double norm = static_cast<double>(entry.norm.as<float>()[row]);
    const double expected = quotient(twin, entry.tensor, documents.view(), [&](Matrix& w, double h) {
      for (std::size_t k = 0; k < cols; ++k)
        w[row * cols + k] += h * static_cast<double>(merged->as<float>()[row * cols + k]) / norm;
    });
    EXPECT_NEAR(static_cast<double>(entry.grad_magnitude.as<float>()[row]), expected, tolerance_of(entry.grad_magnitude))
        << table[entry.tensor].hf_name << " m[" << row << "]";
  }

  // Two entries of each matrix.
  for (const auto& entry : adapters.entries()) {
    for (const bool of_a : {true, false}) {
      const TensorView& gradient = of_a ? entry.grad_a : entry.grad_b;
      for (int probe = 0; probe < 2; ++probe) {
        const std::size_t row = rng.below(static_cast<std::uint32_t>(gradient.rows())),
                          col = rng.below(static_cast<std::uint32_t>(gradient.cols()));
        const double found =
            static_cast<double>(gradient.as<float>()[row * static_cast<std::size_t>(gradient.cols()) + col]);
        EXPECT_NEAR(found, derivative(entry, of_a, row, col), tolerance_of(gradient))
            << table[entry.tensor].hf_name << (of_a ? " A" : " B") << "[" << row << ", " << col << "]";
      }
    }
  }
  return true;
}

/// The same for every weight of full quantization-aware training: dL/dW of a master is that of its decoded weight, at the
/// uses of a tied table together.
bool compare_weight_gradients(const std::string& scheme, bool tied, std::uint64_t seed) {
  const Model m(seed, tied);
  BaseWeights base(*m.reader, DType::F32);
  TrainedWeights weights(*m.reader, base, all_tensors(m.table()), base.storage());
  EncodedWeights encoded(m.ctx, base, quant::scheme(scheme), base.storage());
  Rng rng(5);
  for (float& w : weights.array().parameters().span<float>())
    w += 0.02f * (2.0f * rng.uniform() - 1.0f);  // off the bf16 grid
  weights.prepare(m.ctx);
  encoded.encode(m.ctx, nullptr);
  Transformer model(m.reader->arch(), encoded, nullptr, /*merged=*/true);
  const Documents documents(rng);
  const double sum = model.forward_backward(m.ctx, documents.view(), 1.0f, &weights.gradients());

  Twin twin = m.twin(encoded, [&](std::size_t i, const Tensor& values) {
    if (m.table()[i].role == quant::Role::Norm) return ops::convert(m.ctx, weights.array().parameter(i), values);
    const Tensor stored(base.storage(), values->shape);
    ops::convert(m.ctx, weights.array().parameter(i), stored);
    ops::convert(m.ctx, stored, values);
  });
  if (std::abs(twin.loss(documents.view()) - sum) > 1e-5 * std::abs(sum)) return false;
  for (std::size_t i = 0; i < m.table().size(); ++i) {
    const auto gradient = weights.gradients()[i].span<float>();
    for (int probe = 0; probe < 2; ++probe) {
      // Of the embedding, a row that was looked up.
      const std::size_t cols = static_cast<std::size_t>(weights.gradients()[i].cols());
      const std::size_t at = i == m.table().embedding()
                                 ? static_cast<std::size_t>(documents.tokens[rng.below(15)]) * cols + rng.below(64)
                                 : rng.below(static_cast<std::uint32_t>(gradient.size()));
      const double expected = quotient(twin, i, documents.view(), [&](Matrix& w, double h) { w[at] += h; });
      EXPECT_NEAR(static_cast<double>(gradient[at]), expected, tolerance_of(weights.gradients()[i]))
          << m.table()[i].hf_name << "[" << at << "]";
    }
  }
  return true;
}

struct MergedQat : ::testing::TestWithParam<std::string> {};

/// An activation within f32's error of a tie is rounded one way there and the other way in double; with some ten thousand of
/// them a model in five has one. The first of a few models that has none is compared.
TEST_P(MergedQat, AdapterGradientsEqualTheSurrogates) {
  constexpr std::uint64_t kModels = 8;
  for (std::uint64_t seed = 1; seed <= kModels; ++seed)
    if (compare_gradients(GetParam(), false, seed)) return;
  FAIL() << "the loss differs from the twin's on every model";
}

TEST_P(MergedQat, GradientsOfDoraEqualTheSurrogates) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed)
    if (compare_gradients(GetParam(), true, seed)) return;
  FAIL() << "the loss differs from the twin's on every model";
}

class FullQat : public ::testing::TestWithParam<std::tuple<std::string, bool>> {};

TEST_P(FullQat, WeightGradientsEqualTheSurrogates) {
  const auto& [scheme, tied] = GetParam();
  for (std::uint64_t seed = 1; seed <= 8; ++seed)
    if (compare_weight_gradients(scheme, tied, seed)) return;
  FAIL() << "the loss differs from the twin's on every model";
}

INSTANTIATE_TEST_SUITE_P(Schemes, FullQat,
                         ::testing::Combine(::testing::Values("int4-sym-g32", "q4_0; embedding,head: q8_0", "int8-int4"),
                                            ::testing::Bool()));

// Not int8-int8: its symmetric rule puts the largest magnitude of each row on a tie, ±127.5, and so the last bit of an f32
// decides, which a twin in double cannot know.
INSTANTIATE_TEST_SUITE_P(
    Schemes, MergedQat,
    ::testing::Values("int4-sym-g32", "int8-sym", "q4_0", "q8_0", "int8-int4", "fp8-fp8", "mxfp8", "nvfp4",
                      // values beyond a threshold pass as they are, and so do their gradients
                      "int8-sym/llm-int8",
                      // 16-bit projections, a rounded head, q and k that see different inputs
                      "int4-sym-g32/int8-asym; layers 0 o_proj,up_proj: none; *.down_proj: q8_0/none; "
                      "head: int8-sym; q_proj: int8-sym/fp8-e4m3",
                      // static ranges, one of them the head's
                      "int4-sym-g32/int8-static-asym; *.down_proj: q8_0/int8-static-sym; head: int8-sym"),
    [](const auto& scheme) {
      std::string name = scheme.param;
      for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
      return name;
    });

}  // namespace
}  // namespace temper::model
