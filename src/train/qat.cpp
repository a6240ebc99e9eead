#include "train/qat.h"

#include "eval/loaded_model.h"

namespace temper::train {

QatController::QatController(const ExecContext& ctx, model::BaseWeights& base, model::Adapters& adapters,
                             const model::ArchSpec& arch, const quant::Scheme* scheme, recipe::MergeDtype merge,
                             std::int64_t start_step, model::Recompute recompute)
    : adapters_(adapters), start_step_(start_step), unmerged_(arch, base, &adapters) {
  unmerged_.set_recompute(recompute);
  if (scheme == nullptr) return;
  model::require_fit(base.table(), *scheme);
  encoded_ = std::make_unique<model::EncodedWeights>(ctx, base, *scheme,
                                                     merge == recipe::MergeDtype::F32 ? DType::F32 : base.storage());
  merged_.emplace(arch, *encoded_, &adapters, true);
  merged_->set_recompute(recompute);
}

model::Transformer& QatController::prepare(const ExecContext& ctx, std::int64_t step) {
  if (prepared_ != step) {
    adapters_.prepare(ctx);
    shares_ = {};
    if (active(step)) encode(ctx);
    prepared_ = step;
  }
  return active(step) ? *merged_ : unmerged_;
}

void QatController::encode(const ExecContext& ctx) {
  const quant::CodeStats stats = encoded_->encode(ctx, &adapters_);
  const double total = static_cast<double>(stats.total);
  // The first codes have none before them to differ from.
  if (encoded_before_ && total > 0) shares_.changed = static_cast<double>(stats.changed) / total;
  if (total > 0) shares_.saturated = static_cast<double>(stats.saturated) / total;
  encoded_before_ = true;
}

std::string QatController::checksum() const { return active(prepared_) ? eval::codes_checksum(*encoded_) : std::string(); }

}  // namespace temper::train
