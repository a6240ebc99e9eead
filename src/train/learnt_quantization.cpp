#include "train/learnt_quantization.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "base/log.h"
#include "ops/ops.h"
#include "quant/activations.h"
#include "quant/learnt_scales.h"
#include "quant/scaled_codec.h"

namespace temper::train {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);

bool is_asymmetric(const model::RangeSite& site) { return quant::as_scaled(site.codec)->format().asymmetric(); }

void fill_with_ones(const model::ParameterArray& array) {
  for (std::size_t i = 0; i < array.size(); ++i) std::ranges::fill(array.parameter(i).span<float>(), 1.0f);
}

/// The first samples that have so many tokens, as batches.
std::vector<eval::ModelBatch> first_tokens(const std::vector<text::Sample>& samples, std::int64_t tokens,
                                           std::int64_t positions) {
  std::vector<text::Sample> chosen;
  for (std::int64_t sum = 0; sum < tokens && chosen.size() < samples.size();) {
    text::Sample sample = samples[chosen.size()];
    const auto length = static_cast<std::size_t>(std::min({std::ssize(sample.ids), tokens - sum, positions}));
    sample.ids.resize(length);
    sample.labelled.resize(length);
    sum += std::ssize(sample.ids);
    chosen.push_back(std::move(sample));
  }
  std::vector<eval::ModelBatch> batches;
  for (const auto& [begin, end] : eval::batch_ranges(chosen, eval::kTokensPerPass, std::numeric_limits<std::int64_t>::max()))
    batches.emplace_back(text::batch_of(std::span(chosen).subspan(begin, end - begin)));
  return batches;
}

}  // namespace

LearntQuantization::LearntQuantization(const recipe::Recipe& recipe, model::EncodedWeights* weights,
                                       const model::Adapters* adapters, DType scales)
    : recipe_(recipe), weights_(weights), adapters_(adapters), scales_dtype_(scales) {
  if (!weights) return;
  sites_ = model::range_sites(*weights);
  calibrated_ = Tensor(DType::F32, {static_cast<std::int64_t>(sites_.size()), 2}, true);
  input_site_.assign(weights->table().size(), kNone);
  output_site_ = input_site_;
  for (std::size_t site = 0; site < sites_.size(); ++site)
    for (const std::size_t index : sites_[site].tensors) (sites_[site].output ? output_site_ : input_site_)[index] = site;
  const auto factor = [&](double lr) { return recipe.optim.lr > 0 ? static_cast<float>(lr / recipe.optim.lr) : 0.0f; };
  if (recipe.quant.learn_scales) learn_scales(factor(recipe.quant.scales_lr));
  if (recipe.quant.learn_ranges) learn_ranges(factor(recipe.quant.ranges_lr));
}

void LearntQuantization::learn_scales(float lr_factor) {
  const model::TensorTable& table = weights_->table();
  segment_of_.assign(table.size(), kNone);
  std::vector<model::Segment> segments;
  for (std::size_t i = 0; i < table.size(); ++i) {
    const quant::EncodedView codes = weights_->encoded(i);
    if (table[i].role != quant::Role::Linear || !codes.codec || !codes.codec->has_learnable_scales()) continue;
    segment_of_[i] = segments.size();
    scaled_.push_back(i);
    segments.push_back(
        {table[i].hf_name + "_scale_factor", {codes.rows, codes.codec->groups(codes.cols)}, false, lr_factor});
  }
  if (segments.empty())
    throw BadRecipe(
        "quant.learn_scales: scheme {} holds no projection in integers with a scale per group (int4-sym-g32, int4-asym-g32, "
        "int4, int8, q4_0, q5_0, q8_0 …)",
        weights_->scheme().name);
  scales_ = model::ParameterArray("scales", std::move(segments));
  fill_with_ones(scales_);
  for (const std::size_t i : scaled_) weights_->set_factors(i, scales_.parameter(segment_of_[i]).span<float>());
}

void LearntQuantization::learn_ranges(float lr_factor) {
  std::vector<model::Segment> segments;
  for (const model::RangeSite& site : sites_) {
    if (site.codec->group() != 0)
      throw BadRecipe("quant.learn_ranges: {} is rounded to {}, below whose range every group finds its own", site.name,
                      site.codec->name());
    segments.push_back({site.name + "_range_factor", {is_asymmetric(site) ? 2 : 1}, false, lr_factor});
  }
  if (segments.empty())
    throw BadRecipe(
        "quant.learn_ranges: scheme {} has no static ranges; they come with activations in int8-static-sym, "
        "int8-static-asym or fp8-static, such as \"int4-sym-g32/int8-static-asym\"",
        weights_->scheme().name);
  ranges_ = model::ParameterArray("ranges", std::move(segments));
  fill_with_ones(ranges_);
}

std::vector<model::ParameterArray> LearntQuantization::arrays() const {
  std::vector<model::ParameterArray> arrays;
  if (scales_.size() > 0) arrays.push_back(scales_);
  if (ranges_.size() > 0) arrays.push_back(ranges_);
  return arrays;
}

void LearntQuantization::calibrate(const ExecContext& ctx, model::Transformer& model,
                                   const std::vector<text::Sample>& samples) {
  if (sites_.empty()) return;
  const auto batches = first_tokens(samples, recipe_.quant.range_tokens, model.arch().max_positions);
  const std::vector<eval::RangeEnds> found =
      eval::calibrate_ranges(ctx, model, sites_, batches, recipe_.quant, scales_dtype_);
  const std::span<float> ends = calibrated_->span<float>();
  for (std::size_t site = 0; site < found.size(); ++site) {
    ends[2 * site] = found[site].low;
    ends[2 * site + 1] = found[site].high;
  }
  log_info("static ranges of {} activations are calibrated", sites_.size());
}

eval::RangeEnds LearntQuantization::ends(std::size_t site) const {
  const std::span<const float> found = calibrated_->span<float>();
  eval::RangeEnds ends{found[2 * site], found[2 * site + 1]};
  if (ranges_.size() == 0) return ends;
  const std::span<const float> factors = ranges_.parameter(site).span<float>();
  ends.low *= quant::used_factor(factors.front());
  ends.high *= quant::used_factor(factors.back());
  return ends;
}

void LearntQuantization::prepare() {
  for (std::size_t site = 0; site < sites_.size(); ++site) {
    const auto [low, high] = ends(site);
    model::set_range(*weights_, sites_[site], quant::static_range(*sites_[site].codec, low, high, scales_dtype_));
  }
}

std::vector<StateTensor> LearntQuantization::state() const {
  if (sites_.empty()) return {};
  return {{"ranges.calibrated", calibrated_}};
}

void LearntQuantization::save(const std::filesystem::path& run, eval::RunInfo& info) const {
  if (sites_.empty()) return;
  model::save_ranges(*weights_, run / model::kRangesName);
  info.static_ranges = true;
}

bool LearntQuantization::wants_weight_gradient(int layer, model::Linear linear) const {
  return !segment_of_.empty() && segment_of_[weights_->table().linear(layer, linear)] != kNone;
}

void LearntQuantization::weight_gradient(const ExecContext& ctx, int layer, model::Linear linear, std::int64_t first,
                                         const TensorView& dw) {
  const std::size_t index = weights_->table().linear(layer, linear);
  const TensorView gradient = scales_.gradient(segment_of_[index]).slice_rows(first, first + dw.rows());
  const ArenaScope scope(*ctx.workspace);
  ops::LoraView lora;
  ops::factor_gradients(ctx, weights_->learnt_scales(ctx, adapters_, index, first, dw.rows(), lora), dw,
                        gradient.span<float>());
}

void LearntQuantization::input_range(int layer, model::Linear linear, const quant::RangeGradient& gradient) {
  add(input_site_[weights_->table().linear(layer, linear)], gradient);
}

void LearntQuantization::output_range(int layer, model::Linear linear, const quant::RangeGradient& gradient) {
  add(output_site_[weights_->table().linear(layer, linear)], gradient);
}

void LearntQuantization::head_range(const quant::RangeGradient& gradient) {
  if (weights_) add(input_site_[weights_->table().head()], gradient);
}

/// From scale and zero point to the ends, and on to their factors: scale = (high − low)/255, zero = −128 − low/scale; in
/// symmetric formats the scale is proportional to the factor.
void LearntQuantization::add(std::size_t site, const quant::RangeGradient& gradient) {
  if (site == kNone || ranges_.size() == 0) return;
  const std::span<const float> factors = ranges_.parameter(site).span<float>();
  const std::span<float> gradients = ranges_.gradient(site).span<float>();
  const auto scale = static_cast<double>(model::range_of(*weights_, sites_[site]).scale);
  if (!is_asymmetric(sites_[site])) {
    gradients[0] += static_cast<float>(gradient.scale * scale / quant::used_factor(factors[0]));
    return;
  }
  const double low = std::min(0.0f, ends(site).low), per_code = 1.0 / 255.0;
  const double high_end = per_code * (gradient.scale + gradient.zero * low / (scale * scale));
  const double low_end = -high_end - gradient.zero / scale;
  const std::span<const float> found = calibrated_->span<float>();
  gradients[0] += static_cast<float>(low_end * found[2 * site]);
  gradients[1] += static_cast<float>(high_end * found[2 * site + 1]);
}

}  // namespace temper::train
