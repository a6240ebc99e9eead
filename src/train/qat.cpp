#include "train/qat.h"

#include <algorithm>

#include "eval/loaded_model.h"
#include "train/learnt_quantization.h"

namespace temper::train {
namespace {

/// Steps between two fits of a tensor whose fit is a search: see docs/quantization-aware-training.md for what it costs.
constexpr std::int64_t kSearchCadence = 8;

}  // namespace

QatController::QatController(const ExecContext& ctx, model::BaseWeights& base, const Masters& masters,
                             const model::ArchSpec& arch, const quant::Scheme* scheme, const recipe::QuantOptions& options,
                             std::int64_t total_steps, model::Recompute recompute)
    : base_(base),
      masters_(masters),
      options_(options),
      start_step_(options.start_step),
      total_steps_(total_steps),
      frozen_from_(total_steps),
      unmerged_(arch, base, masters.adapters) {
  unmerged_.set_recompute(recompute);
  if (scheme == nullptr) return;
  model::require_fit(base.table(), *scheme);
  encoded_ = std::make_unique<model::EncodedWeights>(
      ctx, base, *scheme, options.merge_dtype == recipe::MergeDtype::F32 ? DType::F32 : base.storage());
  merged_.emplace(arch, *encoded_, masters.adapters, true);
  merged_->set_recompute(recompute);
  const auto between = [&](std::size_t tensor) { return every(tensor) > 1; };
  std::int64_t freeze = options.freeze_steps;
  if (freeze < 0) freeze = std::ranges::any_of(renewed(), between) ? std::max<std::int64_t>(1, total_steps / 10) : 0;
  frozen_from_ = total_steps - freeze;
}

std::vector<std::size_t> QatController::renewed() const {
  std::vector<std::size_t> found;
  const model::TensorTable& table = encoded_->table();
  for (std::size_t i = 0; i < table.size(); ++i)
    if (is_renewed(i)) found.push_back(i);
  return found;
}

std::int64_t QatController::every(std::size_t tensor) const {
  if (options_.refit_every > 0) return options_.refit_every;
  if (is_taken(tensor)) return 0;
  return encoded_->encoded(tensor).codec->searches() ? kSearchCadence : 1;
}

std::vector<std::size_t> QatController::kept(std::int64_t step) const {
  std::vector<std::size_t> kept;
  if (!active(step)) return kept;
  for (std::size_t tensor = 0; tensor < encoded_->table().size(); ++tensor) {
    if (encoded_->codec(tensor) && (is_renewed(tensor) ? keeps(tensor) : is_taken(tensor))) kept.push_back(tensor);
  }
  return kept;
}

std::string QatController::cadence() const {
  if (!encoded_) return {};
  std::size_t all = 0, fit = 0, never = 0;
  std::int64_t steps = 1;
  for (const std::size_t tensor : renewed()) {
    ++all;
    if (!keeps(tensor)) continue;
    ++(every(tensor) == 0 ? never : fit);
    steps = std::max(steps, every(tensor));
  }
  std::string text;
  if (fit > 0) text = fmt::format("scales of {} of {} matrices are fit every {} steps", fit, all, steps);
  if (fit > 0 && frozen_from_ < total_steps_) text += fmt::format(" and stay as they are from step {} on", frozen_from_);
  if (never > 0) text += fmt::format("{}{} of {} matrices keep the scales of the file", fit > 0 ? "; " : "", never, all);
  return text;
}

/// Fits are spread over the steps, a layer each, so that no step takes longer than the others; the first codes of a tensor
/// are fit, whenever that is.
std::vector<model::Encoding> QatController::encodings(std::int64_t step) const {
  const model::TensorTable& table = encoded_->table();
  std::vector<model::Encoding> how(table.size(), model::Encoding::Fit);
  for (const std::size_t tensor : renewed()) {
    if (!keeps(tensor)) continue;
    const std::int64_t n = every(tensor);
    const bool due = n > 0 && step < frozen_from_ && (step + table[tensor].layer) % n == 0;
    const bool has_parameters = encoded_before_ || is_taken(tensor);
    if (step == restored_ || (step == 0 && is_taken(tensor)))
      how[tensor] = model::Encoding::Leave;
    else if (has_parameters && !due)
      how[tensor] = model::Encoding::KeepParameters;
  }
  return how;
}

void QatController::prepare_masters(const ExecContext& ctx) {
  if (masters_.adapters) masters_.adapters->prepare(ctx, base_);
  if (masters_.weights) masters_.weights->prepare(ctx);
}

model::Transformer& QatController::unmerged(const ExecContext& ctx) {
  prepare_masters(ctx);
  return unmerged_;
}

model::Transformer& QatController::prepare(const ExecContext& ctx, std::int64_t step) {
  if (prepared_ != step) {
    prepare_masters(ctx);
    shares_ = {};
    if (learnt_) learnt_->prepare();
    if (active(step)) encode(ctx, step);
    prepared_ = step;
  }
  return active(step) ? *merged_ : unmerged_;
}

void QatController::set_learnt(LearntQuantization& learnt) {
  learnt_ = &learnt;
  if (merged_) merged_->set_backward_taps(&learnt);
}

void QatController::set_recompute(model::Recompute recompute) {
  unmerged_.set_recompute(recompute);
  if (merged_) merged_->set_recompute(recompute);
}

model::Transformer& QatController::dry(const ExecContext& dry, std::int64_t step) {
  prepare_masters(dry);
  if (!active(step)) return unmerged_;
  encoded_->encode(dry, masters_.adapters);
  return *merged_;
}

void QatController::encode(const ExecContext& ctx, std::int64_t step) {
  const quant::CodeStats stats = encoded_->encode(ctx, masters_.adapters, nullptr, encodings(step));
  const double total = static_cast<double>(stats.total);
  // The first codes have none before them to differ from.
  if (encoded_before_ && total > 0) shares_.changed = static_cast<double>(stats.changed) / total;
  if (total > 0) shares_.saturated = static_cast<double>(stats.saturated) / total;
  encoded_before_ = true;
}

std::string QatController::checksum() const { return active(prepared_) ? eval::codes_checksum(*encoded_) : std::string(); }

}  // namespace temper::train
