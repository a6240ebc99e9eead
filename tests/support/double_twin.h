// A transformer in double precision by plain loops, for gradients by central differences. What a forward pass rounds is
// moved straight-through: see merged_qat_test.cpp.
#pragma once

#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "model/checkpoint_reader.h"
#include "model/transformer.h"
#include "model/weights.h"
#include "ops/cpu/cpu_backend.h"
#include "quant/activations.h"
#include "random_model.h"
#include "temporary_folder.h"

namespace temper::testing {

using namespace temper::model;
using Matrix = std::vector<double>;

/// The surrogate network: one flat double vector per tensor, everything by the definition.
struct Twin {
  const ArchSpec& arch;
  const TensorTable table;
  std::vector<Matrix> weights;  // by table index
  /// Adapters applied unmerged, by table index: y = gain · (W·x + scale · B · A · (x · kept)), kept(t, column) being what
  /// dropout multiplies with, gain that of DoRA for each row, or empty.
  struct LowRank {
    Matrix a, b;
    double scale;
    std::function<double(std::size_t t, std::size_t col)> kept;
    Matrix gain = {};
  };
  std::map<std::size_t, LowRank> adapters{};
  std::vector<quant::InputFormat> inputs{};  // by table index; what a product's activations are rounded to
  /// The inputs of the product with a tensor at a position as they were, and rounded, found by the first loss().
  struct Rounded {
    std::vector<double> before, after;
  };
  mutable std::map<std::pair<std::size_t, std::size_t>, Rounded> roundings{};
  /// By table index: by how much the scale of the input's static range moves, as a share of it.
  std::map<std::size_t, double> range_moves{};

  /// x as the product with tensor `index` takes it: x + (x̂0 − x0), straight-through; of a static range whose scale is (1 +
  /// d) times what it was, (x̂0 − x0) · (1 + d) more than x inside of the range, and x̂0 · (1 + d) outside.
  std::vector<double> rounded(std::size_t index, std::vector<double> x, std::size_t t) const {
    if (inputs.empty() || !inputs[index]) return x;
    const quant::InputFormat& format = inputs[index];
    auto [found, added] = roundings.try_emplace({index, t});
    auto& [before, after] = found->second;
    if (added) {
      before = x;
      std::vector<float> values(x.begin(), x.end());
      const TensorView row(values.data(), DType::F32, {1, static_cast<std::int64_t>(values.size())});
      quant::round_activations(*format.codec, row, row, format.range);
      after.assign(values.begin(), values.end());
    }
    const auto move = range_moves.find(index);
    const double scale = move == range_moves.end() ? 1.0 : 1.0 + move->second;
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (quant::clips(format) && outside(format.range, before[i]))
        x[i] = after[i] * scale;
      else
        x[i] += (after[i] - before[i]) * scale;
    }
    return x;
  }
  /// Of an 8-bit range.
  static bool outside(const quant::StaticRange& range, double x) {
    const double t = x / static_cast<double>(range.scale) + range.zero;
    return t < -128.5 || t > 127.5;
  }

  std::vector<double> norm(const std::vector<double>& x, const Matrix& weight) const {
    double sum = 0;
    for (const double v : x) sum += v * v;
    const double rstd = 1.0 / std::sqrt(sum / static_cast<double>(x.size()) + static_cast<double>(arch.rms_norm_eps));
    std::vector<double> y(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) y[i] = x[i] * rstd * weight[i];
    return y;
  }

  static std::vector<double> times(const Matrix& w, const std::vector<double>& x) {
    std::vector<double> y(w.size() / x.size(), 0.0);
    for (std::size_t r = 0; r < y.size(); ++r)
      for (std::size_t c = 0; c < x.size(); ++c) y[r] += w[r * x.size() + c] * x[c];
    return y;
  }

  /// Of row t.
  std::vector<double> product(std::size_t index, const std::vector<double>& input, std::size_t t) const {
    std::vector<double> x = rounded(index, input, t), y = times(weights[index], x);
    const auto found = adapters.find(index);
    if (found == adapters.end()) return y;
    const LowRank& adapter = found->second;
    for (std::size_t c = 0; c < x.size(); ++c) x[c] *= adapter.kept(t, c);
    const std::vector<double> low = times(adapter.b, times(adapter.a, x));
    for (std::size_t r = 0; r < y.size(); ++r)
      y[r] = (y[r] + adapter.scale * low[r]) * (adapter.gain.empty() ? 1.0 : adapter.gain[r]);
    return y;
  }

  void rotate(std::vector<double>& x, std::size_t position) const {
    const std::size_t d = static_cast<std::size_t>(arch.head_dim), half = d / 2;
    for (std::size_t head = 0; head < x.size() / d; ++head)
      for (std::size_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(position) *
                             std::pow(arch.rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(d));
        double &a = x[head * d + i], &b = x[head * d + i + half];
        const double a0 = a, b0 = b;
        a = a0 * std::cos(angle) - b0 * std::sin(angle);
        b = b0 * std::cos(angle) + a0 * std::sin(angle);
      }
  }

  /// Causal attention of row t over rows [begin, t].
  std::vector<double> attend(const std::vector<std::vector<double>>& q, const std::vector<std::vector<double>>& k,
                             const std::vector<std::vector<double>>& v, std::size_t begin, std::size_t t) const {
    const std::size_t d = static_cast<std::size_t>(arch.head_dim),
                      group = static_cast<std::size_t>(arch.num_heads / arch.num_kv_heads);
    std::vector<double> out(q[t].size(), 0.0);
    for (std::size_t h = 0; h < static_cast<std::size_t>(arch.num_heads); ++h) {
      std::vector<double> p;
      double sum = 0;
      for (std::size_t j = begin; j <= t; ++j) {
        double dot = 0;
        for (std::size_t i = 0; i < d; ++i) dot += q[t][h * d + i] * k[j][h / group * d + i];
        p.push_back(std::exp(dot / std::sqrt(static_cast<double>(d))));
        sum += p.back();
      }
      for (std::size_t j = begin; j <= t; ++j)
        for (std::size_t i = 0; i < d; ++i) out[h * d + i] += p[j - begin] / sum * v[j][h / group * d + i];
    }
    return out;
  }

  /// Σ nll over the batch.
  double loss(const BatchView& batch) const {
    const std::size_t n = batch.tokens.size(), hidden = static_cast<std::size_t>(arch.hidden_size);
    std::vector<std::vector<double>> x(n);
    for (std::size_t t = 0; t < n; ++t) {
      const auto row = weights[table.embedding()].begin() +
                       static_cast<std::ptrdiff_t>(static_cast<std::size_t>(batch.tokens[t]) * hidden);
      x[t].assign(row, row + static_cast<std::ptrdiff_t>(hidden));
    }
    for (int layer = 0; layer < table.layers(); ++layer) {
      const auto w = [&](Linear l) { return table.linear(layer, l); };
      std::vector<std::vector<double>> q(n), k(n), v(n);
      for (std::size_t t = 0; t < n; ++t) {
        const auto normed = norm(x[t], weights[table.attention_norm(layer)]);
        q[t] = product(w(Linear::Q), normed, t);
        k[t] = product(w(Linear::K), normed, t);
        v[t] = product(w(Linear::V), normed, t);
        rotate(q[t], static_cast<std::size_t>(batch.positions[t]));
        rotate(k[t], static_cast<std::size_t>(batch.positions[t]));
      }
      for (std::size_t t = 0; t < n; ++t) {
        const auto o = product(w(Linear::O), attend(q, k, v, t - static_cast<std::size_t>(batch.positions[t]), t), t);
        for (std::size_t i = 0; i < hidden; ++i) x[t][i] += o[i];
        const auto normed = norm(x[t], weights[table.mlp_norm(layer)]);
        auto gate = product(w(Linear::Gate), normed, t);
        const auto up = product(w(Linear::Up), normed, t);
        for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1.0 + std::exp(-gate[i])) * up[i];
        const auto down = product(w(Linear::Down), gate, t);
        for (std::size_t i = 0; i < hidden; ++i) x[t][i] += down[i];
      }
    }
    double sum = 0;
    for (std::size_t t = 0; t < n; ++t) {
      if (batch.targets[t] < 0) continue;
      const auto logits = product(table.head(), norm(x[t], weights[table.final_norm()]), t);
      double total = 0;
      for (const double z : logits) total += std::exp(z);
      sum += std::log(total) - logits[static_cast<std::size_t>(batch.targets[t])];
    }
    return sum;
  }
};

inline Matrix to_double(std::span<const float> x) { return {x.begin(), x.end()}; }

/// Two documents, some rows without a target.
struct Documents {
  std::vector<std::int32_t> tokens, positions, targets;
  std::vector<ops::AttentionSpan> spans = {{0, 9, 0, 9}, {9, 15, 9, 15}};
  explicit Documents(Rng& rng) {
    for (int t = 0; t < 15; ++t) {
      tokens.push_back(static_cast<std::int32_t>(rng.below(48)));
      positions.push_back(t < 9 ? t : t - 9);
      targets.push_back(t == 8 || t == 14 || t % 5 == 0 ? -1 : static_cast<std::int32_t>(rng.below(48)));
    }
  }
  BatchView view() const { return {tokens, positions, targets, spans}; }
};

/// A random model on the disk, opened.
struct Model {
  const temper::testing::TemporaryFolder folder;
  std::optional<CheckpointReader> reader;
  Arena arena{std::size_t{1} << 32};
  const ExecContext ctx{&ops::cpu_backend(), &arena, DType::F32};

  Model(std::uint64_t seed, bool tied, bool outliers = false) {
    temper::testing::RandomModel dims;
    dims.vocab = 48;
    dims.seed = seed;
    dims.tied = tied;
    dims.outliers = outliers;
    temper::testing::write_random_model(folder.path(), dims);
    reader.emplace(CheckpointReader::open(folder.path()));
  }
  const TensorTable& table() const { return reader->table(); }

  /// The network as the codes have it; `plain(i, values)` fills what has none.
  template <typename Plain>
  Twin twin(const EncodedWeights& encoded, Plain&& plain) const {
    Twin twin{reader->arch(), TensorTable(reader->arch()), {}};
    for (std::size_t i = 0; i < table().size(); ++i) {
      const Tensor values(DType::F32, table()[i].shape);
      if (const quant::EncodedView codes = encoded.encoded(i); codes.codec) {
        for (std::int64_t r = 0; r < codes.rows; ++r)  // the definition, row by row
          codes.codec->decode(
              codes.row_range(r, r + 1),
              values.span<float>().subspan(static_cast<std::size_t>(r * codes.cols), static_cast<std::size_t>(codes.cols)));
      } else {
        plain(i, values);
      }
      twin.weights.push_back(to_double(values.span<float>()));
      twin.inputs.push_back({quant::ActivationGrid::None, encoded.input(i), encoded.input_range(i)});
    }
    return twin;
  }
};

/// (loss with `moved(h)` − loss with `moved(−h)`) / 2h of a tensor of the twin, whose `moved` changes its matrix.
template <typename Moved>
double quotient(Twin& twin, std::size_t tensor, const BatchView& batch, Moved&& moved) {
  constexpr double kStep = 1e-4;
  const Matrix saved = twin.weights[tensor];
  double loss[2];
  for (const int sign : {0, 1}) {
    twin.weights[tensor] = saved;
    moved(twin.weights[tensor], sign ? kStep : -kStep);
    loss[sign] = twin.loss(batch);
  }
  twin.weights[tensor] = saved;
  return (loss[1] - loss[0]) / (2 * kStep);
}

/// f32 sums of up to 96 products through two blocks, and the quotient's own h² term.
inline double tolerance_of(const TensorView& gradient) {
  double norm = 0;
  for (const float g : gradient.span<float>()) norm += static_cast<double>(g) * static_cast<double>(g);
  return 2e-4 * std::sqrt(norm / static_cast<double>(gradient.shape.numel())) + 1e-7;
}

}  // namespace temper::testing
