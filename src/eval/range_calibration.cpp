#include "eval/range_calibration.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "quant/activations.h"
#include "quant/scaled_codec.h"

namespace temper::eval {
namespace {

bool is_asymmetric(const quant::Codec& codec) { return quant::as_scaled(&codec)->format().asymmetric(); }

/// bf16's bits in the order of their values, -0 beside 0.
std::vector<std::uint16_t> make_order() {
  std::vector<std::uint16_t> order;
  for (int bits = 0xff7f; bits >= 0x8000; --bits) order.push_back(static_cast<std::uint16_t>(bits));
  for (int bits = 0; bits < 0x7f80; ++bits) order.push_back(static_cast<std::uint16_t>(bits));
  return order;
}

class Collector final : public model::Taps {
 public:
  explicit Collector(std::span<const model::RangeSite> sites) : sites_(sites), counts_(sites.size()) {}

  void input(const ExecContext&, int layer, model::LinearInput which, const TensorView& x) override {
    for (std::size_t i = 0; i < sites_.size(); ++i)
      if (!sites_[i].output && sites_[i].layer == layer && sites_[i].input == which) counts_[i].add(x);
  }
  bool wants_output(int layer, model::Linear linear) const override { return output_site(layer, linear) < sites_.size(); }
  void output(const ExecContext&, int layer, model::Linear linear, const TensorView& y) override {
    counts_[output_site(layer, linear)].add(y);
  }
  const ValueCounts& counts(std::size_t site) const { return counts_[site]; }

 private:
  std::size_t output_site(int layer, model::Linear linear) const {
    const auto site = std::ranges::find_if(
        sites_, [&](const model::RangeSite& s) { return s.output && s.layer == layer && s.linear == linear; });
    return static_cast<std::size_t>(site - sites_.begin());
  }

  std::span<const model::RangeSite> sites_;
  std::vector<ValueCounts> counts_;
};

RangeEnds ends_of(const ValueCounts& counts, const model::RangeSite& site, const recipe::QuantOptions& options,
                  DType scales) {
  if (counts.count() == 0) throw BadData("calibration: no value of {} was seen", site.name);
  // Groups adapt below the tensor scale of NVFP4: clipping it would clip them.
  if (options.range_method == recipe::RangeMethod::MinMax || site.codec->group() != 0) return counts.extremes();
  if (options.range_method == recipe::RangeMethod::Mse) return counts.smallest_error(*site.codec, scales);
  return counts.percentile(options.range_percentile, !is_asymmetric(*site.codec));
}

}  // namespace

void ValueCounts::add(const TensorView& x) {
  const auto add_row = [&](const auto* row) {
    for (std::int64_t i = 0; i < x.cols(); ++i) {
      float value;
      bf16 rounded;
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(*row)>, float>) {
        value = row[i];
        rounded = to_bf16(value);
      } else {
        rounded = row[i];
        value = to_float(rounded);
      }
      if ((rounded.bits & 0x7f80u) == 0x7f80u) continue;
      ++counts_[rounded.bits];
      ++count_;
      extremes_.low = std::min(extremes_.low, value);
      extremes_.high = std::max(extremes_.high, value);
    }
  };
  for (std::int64_t r = 0; r < x.rows(); ++r)
    x.dtype == DType::F32 ? add_row(x.as<const float>() + r * x.row_stride) : add_row(x.as<const bf16>() + r * x.row_stride);
}

RangeEnds ValueCounts::percentile(double percentile, bool magnitudes) const {
  static const std::vector<std::uint16_t> order = make_order();
  const double outside = static_cast<double>(count_) * (100.0 - percentile) / 100.0;
  // The first value, coming from an end, beyond which no more than `outside` values lie.
  const auto first = [&](auto begin, auto end) {
    std::uint64_t sum = 0;
    for (auto bits = begin; bits != end; ++bits) {
      sum += counts_[*bits];
      if (magnitudes) sum += counts_[*bits ^ 0x8000u];
      if (static_cast<double>(sum) > outside) return to_float(bf16{*bits});
    }
    return 0.0f;
  };
  const float high = first(order.rbegin(), magnitudes ? order.rbegin() + 0x7f80 : order.rend());
  if (magnitudes) return {-high, high};
  return {std::min(0.0f, first(order.begin(), order.end())), std::max(0.0f, high)};
}

RangeEnds ValueCounts::smallest_error(const quant::Codec& codec, DType scales) const {
  std::vector<float> values;
  std::vector<double> weights;
  for (std::size_t bits = 0; bits < counts_.size(); ++bits)
    if (counts_[bits] > 0) {
      values.push_back(to_float(bf16{static_cast<std::uint16_t>(bits)}));
      weights.push_back(static_cast<double>(counts_[bits]));
    }
  const quant::Codec& f32 = quant::in_dtype(codec, DType::F32);
  const Shape shape{1, static_cast<std::int64_t>(values.size())};
  std::vector<float> rounded(values.size());
  RangeEnds best = extremes_;
  double least = -1;
  for (int percent = 100; percent >= 20; percent -= 2) {
    const float factor = static_cast<float>(percent) / 100.0f;
    const RangeEnds ends{extremes_.low * factor, extremes_.high * factor};
    quant::round_activations(f32, TensorView(values.data(), DType::F32, shape),
                             TensorView(rounded.data(), DType::F32, shape),
                             quant::static_range(codec, ends.low, ends.high, scales));
    double error = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double difference = static_cast<double>(rounded[i]) - values[i];
      error += weights[i] * difference * difference;
    }
    if (least >= 0 && error >= least) continue;
    least = error;
    best = ends;
  }
  return best;
}

std::vector<RangeEnds> calibrate_ranges(const ExecContext& ctx, model::Transformer& model,
                                        std::span<const model::RangeSite> sites, std::span<const ModelBatch> batches,
                                        const recipe::QuantOptions& options, DType scales) {
  Collector collector(sites);
  const bool head = std::ranges::any_of(sites, [](const model::RangeSite& site) { return site.layer < 0; });
  Progress progress("calibrate ranges", static_cast<std::int64_t>(batches.size()));
  model.set_taps(&collector);
  try {
    for (std::size_t i = 0; i < batches.size(); ++i) {
      if (interrupted()) throw Interrupted("calibration was stopped");
      const model::BatchView view = batches[i].view();
      // The head's input is shown for rows whose logits are asked for.
      std::vector<std::int32_t> rows(head ? view.tokens.size() : 1);
      std::iota(rows.begin(), rows.end(), 0);
      model.logits(ctx, view, rows, [](std::size_t, const TensorView&) {});
      progress.update(static_cast<std::int64_t>(i) + 1);
    }
  } catch (...) {
    model.set_taps(nullptr);
    throw;
  }
  model.set_taps(nullptr);
  std::vector<RangeEnds> ends;
  for (std::size_t i = 0; i < sites.size(); ++i) ends.push_back(ends_of(collector.counts(i), sites[i], options, scales));
  return ends;
}

}  // namespace temper::eval
