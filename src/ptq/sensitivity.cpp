#include "ptq/sensitivity.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "ptq/hidden_states.h"
#include "ptq/mixed_weights.h"
#include "ptq/runner.h"
#include "ptq/square_sums.h"
#include "quant/fallback.h"

namespace temper::ptq {
namespace {

using model::TensorTable;

/// Rows of a matrix, evenly spaced, in F32.
Tensor sample_rows(const TensorView& matrix, std::int64_t wanted) {
  const std::int64_t rows = std::min(wanted, matrix.rows()), cols = matrix.cols();
  Tensor out(DType::F32, {rows, cols});
  for (std::int64_t r = 0; r < rows; ++r) {
    const TensorView row = matrix.slice_rows(r * matrix.rows() / rows, r * matrix.rows() / rows + 1);
    float* to = out->span<float>().data() + r * cols;
    const auto copy = [&]<typename T>(T) {
      const auto values = row.span<const T>();
      for (std::int64_t c = 0; c < cols; ++c) to[c] = to_float(values[static_cast<std::size_t>(c)]);
    };
    if (matrix.dtype == DType::BF16)
      copy(bf16{});
    else if (matrix.dtype == DType::F16)
      copy(f16{});
    else
      copy(float{});
  }
  return out;
}

/// Σ over rows and columns of h (w − ŵ)².
double weighted_error(const quant::Codec& codec, const TensorView& rows, std::span<const double> h) {
  const std::int64_t cols = rows.cols();
  const std::size_t bytes = codec.row_bytes(cols);
  std::vector<std::byte> encoded(static_cast<std::size_t>(rows.rows()) * bytes);
  Tensor decoded(DType::F32, rows.shape);
  codec.encode_rows(rows, encoded);
  codec.decode_rows(encoded, decoded);
  const auto w = rows.span<const float>(), d = decoded->span<const float>();
  double sum = 0.0;
  for (std::size_t i = 0; i < w.size(); ++i) {
    const double e = static_cast<double>(w[i]) - static_cast<double>(d[i]);
    sum += h[i % h.size()] * e * e;
  }
  return sum;
}

bool is_matrix(const model::TensorInfo& info) { return info.role != quant::Role::Norm; }

std::uint64_t encoded_bytes(const quant::Codec* codec, const Shape& shape) {
  const std::size_t row = codec ? codec->row_bytes(shape[1]) - codec->repeated_bytes(shape[1])
                                : static_cast<std::size_t>(shape[1]) * sizeof(bf16);
  return static_cast<std::uint64_t>(shape[0]) * row;
}

/// Matrices that are put into a format together.
struct Unit {
  int layer = 0;  ///< The first block that notices; below 0: the embedding, which is in front of all; the last: the head.
  std::vector<std::size_t> tensors;
};

/// Tensors of one kind in neighbouring layers, in the order of their first blocks; each table is a unit of its own.
std::vector<Unit> units_of(const TensorTable& table, int layer_groups) {
  std::map<std::pair<int, int>, Unit> units;
  for (std::size_t i = 0; i < table.size(); ++i) {
    const model::TensorInfo& info = table[i];
    if (!is_matrix(info)) continue;
    const bool linear = info.role == quant::Role::Linear;
    const int kind = linear ? static_cast<int>(info.place.projection) : -1 - static_cast<int>(info.role);
    Unit& unit = units[{kind, linear ? info.layer * layer_groups / table.layers() : 0}];
    if (unit.tensors.empty()) unit.layer = linear ? info.layer : info.role == quant::Role::Embedding ? -1 : table.layers();
    unit.tensors.push_back(i);
  }
  std::vector<Unit> out;
  for (auto& [key, unit] : units) out.push_back(std::move(unit));
  std::ranges::stable_sort(out, {}, &Unit::layer);
  return out;
}

/// log Σ exp(x). Exponentials in f32, their sum in double: errors of single ones average out.
double log_sum_exp(std::span<const float> x) {
  const float max = *std::ranges::max_element(x);
  double sum = 0.0;
  for (const float v : x) sum += static_cast<double>(std::exp(v - max));
  return std::log(sum) + static_cast<double>(max);
}

/// KL(softmax(y) ‖ softmax(x)) with y's log Σ exp at hand.
double divergence_of(std::span<const float> x, std::span<const float> y, double y_log_sum) {
  const auto shift = static_cast<float>(y_log_sum);
  double weight = 0.0, difference = 0.0;
  for (std::size_t v = 0; v < x.size(); ++v) {
    const auto p = static_cast<double>(std::exp(y[v] - shift));
    weight += p;
    difference += p * (static_cast<double>(y[v]) - static_cast<double>(x[v]));
  }
  return std::max(0.0, difference / weight + log_sum_exp(x) - y_log_sum);
}

/// A calibration text at the 16-bit model, and how far models with some matrices in formats are from it.
class Divergence {
 public:
  Divergence(const ExecContext& ctx, model::BaseWeights& base, const model::ArchSpec& arch,
             std::span<const text::Sample> samples)
      : ctx_(ctx),
        mixed_(base),
        reference_(arch, base),
        model_(arch, mixed_),
        batches_(batches_of(samples, arch)),
        logits_(row_counts(), arch.vocab_size, kMemory),
        log_sums_(batches_.size()) {}

  /// The 16-bit model's logits; `taps`, if given, see its inputs. To be called first.
  void run_reference(model::Taps* taps) {
    reference_.set_taps(taps);
    for (std::size_t b = 0; b < batches_.size(); ++b) {
      check_interrupt();
      const std::vector<std::int32_t> rows = model::Transformer::labelled_rows(batches_[b].view());
      log_sums_[b].resize(rows.size());
      reference_.logits(ctx_, batches_[b].view(), rows, [&](std::size_t first, const TensorView& logits) {
        const auto begin = static_cast<std::int64_t>(first);
        ops::convert(ctx_, logits, logits_[b].slice_rows(begin, begin + logits.rows()));
        parallel_for(logits.rows(), 1, [&](std::int64_t from, std::int64_t to) {
          for (std::int64_t i = from; i < to; ++i)
            log_sums_[b][first + static_cast<std::size_t>(i)] = log_sum_exp(logits.slice_rows(i, i + 1).span<const float>());
        });
      });
    }
    reference_.set_taps(nullptr);
  }

  /// Calls visit() for each unit when the text stands before its first block: `measure` may be called for that unit then.
  template <typename Visit>
  void walk(std::span<const Unit> units, Visit&& visit) {
    LayerRunner runner(ctx_, reference_, batches_, kMemory);
    for (const Unit& unit : units) {
      while (runner.layer() < unit.layer) runner.advance();
      states_ = &runner.states();
      visit(unit);
    }
    states_ = nullptr;
  }

  /// Mean divergence with the unit's matrices in a format, the rest in 16 bits, nats a token.
  double measure(const Unit& unit, const quant::Codec& codec) {
    for (const std::size_t i : unit.tensors) mixed_.set(ctx_, i, &codec);
    mixed_.activate(ctx_, unit.tensors);
    double sum = 0.0;
    for (std::size_t b = 0; b < batches_.size(); ++b) {
      check_interrupt();
      sum += measure_batch(b, unit.layer);
    }
    for (const std::size_t i : unit.tensors) mixed_.set(ctx_, i, nullptr);
    return sum / static_cast<double>(tokens());
  }

  std::int64_t tokens() const {
    std::int64_t sum = 0;
    for (const auto& rows : log_sums_) sum += static_cast<std::int64_t>(rows.size());
    return sum;
  }

 private:
  static constexpr std::size_t kMemory = std::size_t{1} << 30;  // of logits and of hidden states; beyond, in files

  static std::vector<eval::ModelBatch> batches_of(std::span<const text::Sample> samples, const model::ArchSpec& arch) {
    eval::check_lengths(samples, arch);
    std::vector<eval::ModelBatch> batches;
    for (const auto& [begin, end] : eval::batch_ranges(samples, eval::kTokensPerPass, eval::kTokensPerPass))
      if (text::Batch batch = text::batch_of(samples.subspan(begin, end - begin));
          std::ranges::any_of(batch.targets, [](std::int32_t target) { return target >= 0; }))
        batches.emplace_back(std::move(batch));
    if (batches.empty()) throw BadData("sensitivity: no labelled tokens to measure on");
    return batches;
  }
  std::vector<std::int64_t> row_counts() const {
    std::vector<std::int64_t> counts;
    for (const eval::ModelBatch& batch : batches_)
      counts.push_back(static_cast<std::int64_t>(model::Transformer::labelled_rows(batch.view()).size()));
    return counts;
  }
  static void check_interrupt() {
    if (interrupted()) throw Interrupted("sensitivity: interrupted");
  }

  double measure_batch(std::size_t b, int layer) {
    const model::BatchView batch = batches_[b].view();
    const ArenaScope scope(*ctx_.workspace);
    const TensorView x = ctx_.workspace->allocate(DType::F32, (*states_)[b].shape);
    if (layer < 0)
      model_.embed(ctx_, batch, x);
    else
      ops::convert(ctx_, (*states_)[b], x);
    std::vector<double> klds(log_sums_[b].size());
    const auto rows = model::Transformer::labelled_rows(batch);
    model_.logits_from(ctx_, batch, std::max(layer, 0), x, rows, [&](std::size_t first, const TensorView& logits) {
      const TensorView reference = logits_[b];
      parallel_for(logits.rows(), 1, [&](std::int64_t from, std::int64_t to) {
        for (std::int64_t i = from; i < to; ++i) {
          const std::size_t row = first + static_cast<std::size_t>(i);
          const auto at = static_cast<std::int64_t>(row);
          klds[row] = divergence_of(logits.slice_rows(i, i + 1).span<const float>(),
                                    reference.slice_rows(at, at + 1).span<const float>(), log_sums_[b][row]);
        }
      });
    });
    double sum = 0.0;
    for (const double kld : klds) sum += kld;
    return sum;
  }

  const ExecContext& ctx_;
  MixedWeights mixed_;
  model::Transformer reference_, model_;
  std::vector<eval::ModelBatch> batches_;
  HiddenStates logits_;  // of the reference, by batch: [labelled rows, vocab]
  std::vector<std::vector<double>> log_sums_;
  const HiddenStates* states_ = nullptr;
};

/// Bytes and output error of each format in one tensor; the last is 16-bit.
TensorCosts tensor_errors(const model::BaseWeights& base, std::size_t tensor, std::span<const double> h,
                          const SensitivityOptions& options) {
  const model::TensorInfo& info = base.table()[tensor];
  const std::int64_t cols = info.shape[1];
  const Tensor rows = sample_rows(base.tensor(tensor), options.sampled_rows);
  const double scale = static_cast<double>(info.shape[0]) / static_cast<double>(rows->rows());
  TensorCosts out{tensor, {}};
  for (const quant::Codec* codec : options.codecs)
    if (codec->fits(cols))
      out.types.push_back({codec, {encoded_bytes(codec, info.shape), scale * weighted_error(*codec, rows, h)}});
  out.types.push_back({nullptr, {encoded_bytes(nullptr, info.shape), 0.0}});
  return out;
}

/// How much of a forward pass the work on units is: the rest of the model for each format, the head with its share.
class Work {
 public:
  Work(const TensorTable& table, const model::ArchSpec& arch) : layers_(table.layers()) {
    double block = 0.0;
    for (const model::Linear l : model::kLinears) block += static_cast<double>(table[table.linear(0, l)].shape.numel());
    head_ = static_cast<double>(arch.vocab_size * arch.hidden_size) / block;
  }
  double passes(const Unit& unit) const {
    return (static_cast<double>(layers_ - std::max(unit.layer, 0)) + head_) / (static_cast<double>(layers_) + head_);
  }
  double passes(std::span<const Unit> units, std::span<const TensorCosts> costs) const {
    double sum = 0.0;
    for (const Unit& unit : units) sum += static_cast<double>(costs[unit.tensors.front()].types.size() - 1) * passes(unit);
    return sum;
  }

 private:
  int layers_;
  double head_;  // in blocks
};

/// Every tensor alone if that takes no longer than is allowed, else larger and larger neighbourhoods of layers.
int choose_groups(const TensorTable& table, const Work& work, std::span<const TensorCosts> costs, double seconds_of_pass,
                  double minutes) {
  int groups = table.layers();
  while (minutes > 0 && groups > 1 && work.passes(units_of(table, groups), costs) * seconds_of_pass > 60.0 * minutes)
    groups = (groups + 1) / 2;
  return groups;
}

/// Replaces the errors of a unit's tensors in a format by their shares of what it costs.
void share_out(double nats, const Unit& unit, std::size_t type, std::span<TensorCosts> costs) {
  double total = 0.0;
  for (const std::size_t i : unit.tensors) total += costs[i].types[type].choice.cost;
  for (const std::size_t i : unit.tensors) {
    double& cost = costs[i].types[type].choice.cost;
    cost = total > 0.0 ? nats * cost / total : nats / static_cast<double>(unit.tensors.size());
  }
}

constexpr double kPassesBefore = 3.0;  // the 16-bit model's two, and its walk through the blocks

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::vector<std::vector<Choice>> Sensitivity::choices() const {
  std::vector<std::vector<Choice>> out(tensors.size());
  for (std::size_t t = 0; t < tensors.size(); ++t)
    for (const TypeCost& type : tensors[t].types) out[t].push_back(type.choice);
  return out;
}

Sensitivity measure_sensitivity(const ExecContext& ctx, model::BaseWeights& base, const model::ArchSpec& arch,
                                std::span<const text::Sample> samples, const SensitivityOptions& options) {
  const TensorTable& table = base.table();
  Divergence divergence(ctx, base, arch, samples);
  SquareSums sums(table.layers());
  const auto start = std::chrono::steady_clock::now();
  divergence.run_reference(&sums);
  const auto again = std::chrono::steady_clock::now();  // the first pass reads the file and sums up squares
  divergence.run_reference(nullptr);
  const double seconds_of_pass = seconds_since(again);
  std::vector<TensorCosts> costs(table.size());
  parallel_for(static_cast<std::int64_t>(table.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      if (is_matrix(table[i])) costs[i] = tensor_errors(base, i, sums.of(table, i), options);
  });
  const Work work(table, arch);
  Sensitivity out;
  out.layer_groups = choose_groups(table, work, costs, seconds_of_pass, options.minutes);
  const std::vector<Unit> units = units_of(table, out.layer_groups);
  out.passes = kPassesBefore + work.passes(units, costs);
  log_info("sensitivity: {} of {} matrices, each format apart: {:.0f} forward passes, about {:.1f} min",
           out.layer_groups == table.layers() ? "every one" : fmt::format("{} groups", units.size()),
           std::ranges::count_if(table.all(), is_matrix), out.passes, out.passes * seconds_of_pass / 60.0);
  Progress progress("sensitivity", static_cast<std::int64_t>(out.passes * 100.0));
  double done = kPassesBefore;
  divergence.walk(units, [&](const Unit& unit) {
    const std::size_t formats = costs[unit.tensors.front()].types.size() - 1;  // all but 16-bit
    for (std::size_t type = 0; type < formats; ++type) {
      const quant::Codec& codec = *costs[unit.tensors.front()].types[type].codec;
      share_out(divergence.measure(unit, codec), unit, type, costs);
      done += work.passes(unit);
      progress.update(static_cast<std::int64_t>(done * 100.0),
                      {.note = fmt::format("{} in {}", table[unit.tensors.front()].hf_name, codec.name())});
    }
  });
  out.tokens = divergence.tokens();
  for (std::size_t i = 0; i < table.size(); ++i) {
    out.weights += table[i].shape.numel();
    if (is_matrix(table[i]))
      out.tensors.push_back(std::move(costs[i]));
    else
      out.fixed_bytes += static_cast<std::uint64_t>(table[i].shape.numel()) * sizeof(float);
  }
  out.seconds = seconds_since(start);
  return out;
}

eval::Comparison measure_mix(const ExecContext& ctx, model::BaseWeights& base, const model::ArchSpec& arch,
                             std::span<const quant::Codec* const> codecs, std::span<const text::Sample> samples,
                             const eval::BootstrapOptions& bootstrap) {
  MixedWeights mixed(base);
  std::vector<std::size_t> all;
  for (std::size_t i = 0; i < codecs.size(); ++i) {
    if (!codecs[i]) continue;
    mixed.set(ctx, i, codecs[i]);
    all.push_back(i);
  }
  mixed.activate(ctx, all);
  model::Transformer reference(arch, base), model(arch, mixed);
  eval::CompareOptions options;
  options.bootstrap = bootstrap;
  options.progress = "measure the mix";
  return eval::compare(ctx, model, reference, samples, options);
}

Allocation uniform(const Sensitivity& sensitivity, const TensorTable& table, const quant::Codec& codec) {
  Allocation out;
  for (const TensorCosts& tensor : sensitivity.tensors) {
    const quant::Codec *sixteen = nullptr, *wanted = quant::fallback_for(codec, table[tensor.tensor].shape[1]);
    auto found = std::ranges::find(tensor.types, wanted, &TypeCost::codec);
    if (found == tensor.types.end()) found = std::ranges::find(tensor.types, sixteen, &TypeCost::codec);
    out.chosen.push_back(static_cast<std::size_t>(found - tensor.types.begin()));
    out.bytes += found->choice.bytes;
    out.cost += found->choice.cost;
  }
  return out;
}

std::vector<const quant::Codec*> codecs_of(const Sensitivity& sensitivity, const Allocation& allocation,
                                           std::size_t table_size) {
  std::vector<const quant::Codec*> out(table_size, nullptr);
  for (std::size_t t = 0; t < sensitivity.tensors.size(); ++t)
    out[sensitivity.tensors[t].tensor] = sensitivity.tensors[t].types[allocation.chosen[t]].codec;
  return out;
}

std::vector<const quant::Codec*> default_types() {
  std::vector<const quant::Codec*> out;
  for (const char* name :
       {"q2_k", "q3_k", "iq4_xs", "q4_k", "q5_k", "q6_k", "iq4_nl", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"})
    if (const quant::Codec* codec = quant::find_codec(name); codec && codec->encodes()) out.push_back(codec);
  return out;
}

}  // namespace temper::ptq
