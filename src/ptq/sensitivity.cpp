#include "ptq/sensitivity.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "ptq/mixed_weights.h"
#include "ptq/square_sums.h"

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

/// Tensors of one kind in neighbouring layers; each table is a group of its own.
std::vector<std::vector<std::size_t>> group_tensors(const TensorTable& table, int layer_groups) {
  std::map<std::pair<int, int>, std::vector<std::size_t>> groups;
  for (std::size_t i = 0; i < table.size(); ++i) {
    const model::TensorInfo& info = table[i];
    if (!is_matrix(info)) continue;
    const bool linear = info.role == quant::Role::Linear;
    const int kind = linear ? static_cast<int>(info.place.projection) : -1 - static_cast<int>(info.role);
    groups[{kind, linear ? info.layer * layer_groups / table.layers() : 0}].push_back(i);
  }
  std::vector<std::vector<std::size_t>> out;
  for (auto& [key, tensors] : groups) out.push_back(std::move(tensors));
  return out;
}

/// The format nearest to `bits` of those that fit the rows of a matrix.
const quant::Codec* probe_of(const SensitivityOptions& options, std::int64_t cols) {
  const quant::Codec* best = nullptr;
  const auto distance = [&](const quant::Codec* codec) {
    return std::abs(codec->bits_per_weight(cols) - options.probe_bits);
  };
  for (const quant::Codec* codec : options.codecs)
    if (codec->fits(cols) && (!best || distance(codec) < distance(best))) best = codec;
  return best;
}

/// Mean divergence of the model with one group after another in its probe formats.
std::vector<double> measure_groups(const ExecContext& ctx, model::BaseWeights& base, const model::ArchSpec& arch,
                                   std::span<const std::vector<std::size_t>> groups, std::span<const text::Sample> samples,
                                   SquareSums& sums, const SensitivityOptions& options, std::int64_t& tokens) {
  MixedWeights mixed(base);
  for (const auto& group : groups)
    for (const std::size_t i : group) mixed.set(ctx, i, probe_of(options, base.table()[i].shape[1]));
  model::Transformer reference(arch, base), model(arch, mixed);
  const std::size_t vocab = static_cast<std::size_t>(arch.vocab_size);
  constexpr std::int64_t kHeldBytes = 256 << 20;
  const std::int64_t held_rows = std::max<std::int64_t>(1, kHeldBytes / 4 / arch.vocab_size);
  const auto ranges = eval::batch_ranges(samples, eval::kTokensPerPass, held_rows);
  std::vector<double> divergence(groups.size(), 0.0);
  Progress progress("sensitivity", static_cast<std::int64_t>(ranges.size() * groups.size()));
  std::int64_t done = 0;
  for (const auto& [begin, end] : ranges) {
    const eval::ModelBatch batch(text::batch_of(samples.subspan(begin, end - begin)));
    std::vector<std::int32_t> rows;
    for (std::size_t t = 0; t < batch.batch().targets.size(); ++t)
      if (batch.batch().targets[t] >= 0) rows.push_back(static_cast<std::int32_t>(t));
    tokens += static_cast<std::int64_t>(rows.size());
    std::vector<float> held(rows.size() * vocab);
    reference.set_taps(&sums);
    reference.logits(ctx, batch.view(), rows, [&](std::size_t first, const TensorView& logits) {
      std::ranges::copy(logits.span<float>(), held.begin() + static_cast<std::ptrdiff_t>(first * vocab));
    });
    reference.set_taps(nullptr);
    for (std::size_t g = 0; g < groups.size(); ++g) {
      if (interrupted()) throw Interrupted("sensitivity: interrupted");
      mixed.activate(ctx, groups[g]);
      std::vector<double> klds(rows.size());
      model.logits(ctx, batch.view(), rows, [&](std::size_t first, const TensorView& logits) {
        const std::span<const float> values = logits.span<float>();
        parallel_for(logits.rows(), 1, [&](std::int64_t from, std::int64_t to) {
          for (auto i = static_cast<std::size_t>(from); i < static_cast<std::size_t>(to); ++i)
            klds[first + i] = eval::compare_token(values.subspan(i * vocab, vocab),
                                                  std::span<const float>(held).subspan((first + i) * vocab, vocab), 0)
                                  .kld;
        });
      });
      for (const double kld : klds) divergence[g] += kld;
      progress.update(++done);
    }
  }
  if (tokens == 0) throw BadData("sensitivity: no labelled tokens to measure on");
  for (double& d : divergence) d /= static_cast<double>(tokens);
  return divergence;
}

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

}  // namespace

std::vector<std::vector<Choice>> Sensitivity::choices() const {
  std::vector<std::vector<Choice>> out(tensors.size());
  for (std::size_t t = 0; t < tensors.size(); ++t)
    for (const TypeCost& type : tensors[t].types) out[t].push_back(type.choice);
  return out;
}

Sensitivity measure_sensitivity(const ExecContext& ctx, model::BaseWeights& base, const model::ArchSpec& arch,
                                std::span<const text::Sample> samples, const SensitivityOptions& options) {
  eval::check_lengths(samples, arch);
  const TensorTable& table = base.table();
  const auto groups = group_tensors(table, options.layer_groups);
  Sensitivity out;
  SquareSums sums(table.layers());
  const std::vector<double> divergence = measure_groups(ctx, base, arch, groups, samples, sums, options, out.tokens);
  std::vector<TensorCosts> costs(table.size());
  parallel_for(static_cast<std::int64_t>(table.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i)
      if (is_matrix(table[i])) costs[i] = tensor_errors(base, i, sums.of(table, i), options);
  });
  for (std::size_t g = 0; g < groups.size(); ++g) {
    double probed = 0.0;  // the group's output error in the probe formats
    for (const std::size_t i : groups[g]) {
      const quant::Codec* probe = probe_of(options, table[i].shape[1]);
      for (const TypeCost& type : costs[i].types)
        if (type.codec == probe) probed += type.choice.cost;
    }
    const double nats = probed > 0.0 ? divergence[g] / probed : 0.0;
    for (const std::size_t i : groups[g])
      for (TypeCost& type : costs[i].types) type.choice.cost *= nats;
  }
  for (std::size_t i = 0; i < table.size(); ++i) {
    out.weights += table[i].shape.numel();
    if (is_matrix(table[i]))
      out.tensors.push_back(std::move(costs[i]));
    else
      out.fixed_bytes += static_cast<std::uint64_t>(table[i].shape.numel()) * sizeof(float);
  }
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
