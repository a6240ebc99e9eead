// Gradients of adapters that are applied unmerged against a twin in double precision: with dropout, which is given the same
// masks, and with DoRA, whose norms are constants to the gradient.
#include <gtest/gtest.h>

#include <cstring>

#include "double_twin.h"

namespace temper::model {
namespace {

using namespace temper::testing;  // double_twin.h

/// What dropout multiplies element (t, col) of a matrix of `cols` columns with, by the definition (ops/dropout.h).
double kept(const ops::Dropout& d, std::size_t t, std::size_t col, std::size_t cols) {
  const std::uint64_t groups = (cols + 63) / 64, row = static_cast<std::uint64_t>(d.first_row) + t;
  const auto words = philox(d.seed, d.stream, (row * groups + col / 64) * 16 + col % 16);
  return static_cast<double>(words[col % 64 / 16]) >= static_cast<double>(d.p) * 0x1p32 ? 1 / (1 - static_cast<double>(d.p))
                                                                                        : 0;
}

Twin unmerged_twin(const Model& m, const Adapters& adapters, std::int64_t step, std::int64_t first) {
  Twin twin{m.reader->arch(), TensorTable(m.reader->arch()), {}};
  for (std::size_t i = 0; i < m.table().size(); ++i) {
    const Tensor values(DType::F32, m.table()[i].shape);
    m.reader->read(i, values);
    twin.weights.push_back(to_double(values.span<float>()));
  }
  for (const Adapters::Entry& entry : adapters.entries()) {
    // The stream of a step's module, as Transformer and its blocks count them.
    const ops::Dropout draws{static_cast<float>(adapters.config().dropout), adapters.seed(),
                             (std::uint64_t{1} << 63 | static_cast<std::uint64_t>(step) << 24) +
                                 static_cast<std::uint64_t>(entry.layer) * kLinears.size() +
                                 static_cast<std::uint64_t>(entry.linear),
                             first};
    const std::size_t cols = static_cast<std::size_t>(entry.a.cols());
    twin.adapters[entry.tensor] = {to_double(entry.a.span<float>()), to_double(entry.b.span<float>()), entry.scale,
                                   [draws, cols](std::size_t t, std::size_t col) { return kept(draws, t, col, cols); }};
  }
  return twin;
}

/// Central difference of the loss by one value of the twin.
double derivative(const Twin& twin, double& value, const BatchView& batch) {
  constexpr double kStep = 1e-4;
  const double saved = value;
  value = saved + kStep;
  const double above = twin.loss(batch);
  value = saved - kStep;
  const double below = twin.loss(batch);
  value = saved;
  return (above - below) / (2 * kStep);
}

/// ‖W + s·B·A‖ of each row, by the definition.
Matrix norms(const Matrix& w, const Twin::LowRank& adapter, std::size_t rank) {
  const std::size_t rows = adapter.b.size() / rank, cols = w.size() / rows;
  Matrix norms(rows, 0.0);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < cols; ++c) {
      double sum = 0;
      for (std::size_t k = 0; k < rank; ++k) sum += adapter.b[r * rank + k] * adapter.a[k * cols + c];
      norms[r] += (w[r * cols + c] + adapter.scale * sum) * (w[r * cols + c] + adapter.scale * sum);
    }
    norms[r] = std::sqrt(norms[r]);
  }
  return norms;
}

TEST(UnmergedAdapters, GradientsOfDoraEqualTheDefinition) {
  const Model m(1, false);
  BaseWeights base(*m.reader, DType::F32);
  LoraConfig config{.r = 4, .alpha = 8, .target_modules = {}};
  config.dora = true;
  Adapters adapters(m.table(), config, 3);
  adapters.init_magnitudes(m.ctx, base);
  Rng rng(5);
  for (const auto& entry : adapters.entries()) {
    for (float& b : entry.b.span<float>()) b = 0.1f * (2.0f * rng.uniform() - 1.0f);
    for (float& magnitude : entry.magnitude.span<float>()) magnitude *= 1.0f + 0.2f * (2.0f * rng.uniform() - 1.0f);
  }
  adapters.prepare(m.ctx, base);
  Transformer model(m.reader->arch(), base, &adapters);
  const Documents documents(rng);
  const double sum = model.forward_backward(m.ctx, documents.view(), 1.0f);
  Twin twin = unmerged_twin(m, adapters, 0, 0);
  for (const auto& entry : adapters.entries()) {
    Twin::LowRank& adapter = twin.adapters.at(entry.tensor);
    adapter.gain = norms(twin.weights[entry.tensor], adapter, 4);
    for (std::size_t r = 0; r < adapter.gain.size(); ++r)
      adapter.gain[r] = static_cast<double>(entry.magnitude.as<float>()[r]) / adapter.gain[r];
  }
  EXPECT_NEAR(sum, twin.loss(documents.view()), 1e-5 * sum);
  for (const auto& entry : adapters.entries()) {
    Twin::LowRank& adapter = twin.adapters.at(entry.tensor);
    const Matrix norm = norms(twin.weights[entry.tensor], adapter, 4);
    for (int probe = 0; probe < 2; ++probe) {
      const auto below = [&](const Matrix& x) { return rng.below(static_cast<std::uint32_t>(x.size())); };
      const std::size_t a = below(adapter.a), b = below(adapter.b), row = below(adapter.gain);
      const auto expect = [&](const TensorView& gradient, std::size_t at, double expected, const char* name) {
        EXPECT_NEAR(static_cast<double>(gradient.as<float>()[at]), expected, tolerance_of(gradient))
            << m.table()[entry.tensor].hf_name << " " << name << "[" << at << "]";
      };
      expect(entry.grad_a, a, derivative(twin, adapter.a[a], documents.view()), "A");
      expect(entry.grad_b, b, derivative(twin, adapter.b[b], documents.view()), "B");
      expect(entry.grad_magnitude, row, derivative(twin, adapter.gain[row], documents.view()) / norm[row], "m");
    }
  }
}

TEST(UnmergedAdapters, GradientsWithDropoutEqualTheDefinition) {
  const Model m(1, false);
  BaseWeights base(*m.reader, DType::F32);
  LoraConfig config{.r = 4, .alpha = 8, .target_modules = {}};
  config.dropout = 0.3;
  config.rank_pattern = {{"up_proj", 2}};
  Adapters adapters(m.table(), config, 3);
  Rng rng(5);
  for (const auto& entry : adapters.entries())
    for (float& b : entry.b.span<float>()) b = 0.1f * (2.0f * rng.uniform() - 1.0f);
  adapters.prepare(m.ctx, base);
  Transformer model(m.reader->arch(), base, &adapters);
  const Documents documents(rng);
  constexpr std::int64_t kTheStep = 7;
  model.begin_step(kTheStep);
  model.forward_backward(m.ctx, documents.view(), 1.0f);
  std::memset(adapters.gradients().data, 0, adapters.gradients().bytes());
  // The second micro-batch of the step: its tokens count on from the first one's.
  const double sum = model.forward_backward(m.ctx, documents.view(), 1.0f);
  Twin twin = unmerged_twin(m, adapters, kTheStep, 15);
  EXPECT_NEAR(sum, twin.loss(documents.view()), 1e-5 * sum);
  for (const auto& entry : adapters.entries()) {
    Twin::LowRank& adapter = twin.adapters.at(entry.tensor);
    for (int probe = 0; probe < 2; ++probe) {
      const std::size_t a = rng.below(static_cast<std::uint32_t>(adapter.a.size())),
                        b = rng.below(static_cast<std::uint32_t>(adapter.b.size()));
      EXPECT_NEAR(static_cast<double>(entry.grad_a.as<float>()[a]), derivative(twin, adapter.a[a], documents.view()),
                  tolerance_of(entry.grad_a))
          << m.table()[entry.tensor].hf_name << " A[" << a << "]";
      EXPECT_NEAR(static_cast<double>(entry.grad_b.as<float>()[b]), derivative(twin, adapter.b[b], documents.view()),
                  tolerance_of(entry.grad_b))
          << m.table()[entry.tensor].hf_name << " B[" << b << "]";
    }
  }
  EXPECT_LT(std::abs(model.nll(m.ctx, documents.view())[0] -  // scoring drops nothing
                     Transformer(m.reader->arch(), base, &adapters).nll(m.ctx, documents.view())[0]),
            1e-30);
}

}  // namespace
}  // namespace temper::model
