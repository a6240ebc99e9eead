#include "train/trained_parts.h"

#include <algorithm>

#include "base/error.h"
#include "model/base_format.h"
#include "model/peft.h"
#include "model/peft_fused.h"
#include "train/fingerprint.h"
#include "train/first_adapter.h"
#include "train/lora_init.h"
#include "train/lora_options.h"
#include "train/run_folder.h"

namespace temper::train {
namespace {

/// "16", or "4 to 32".
std::string ranks(const model::Adapters& adapters) {
  const auto rank = [](const model::Adapters::Entry& entry) { return entry.a.rows(); };
  const auto [least, most] = std::ranges::minmax_element(adapters.entries(), {}, rank);
  return rank(*least) == rank(*most) ? fmt::format("{}", rank(*least)) : fmt::format("{} to {}", rank(*least), rank(*most));
}

/// Dtype to which trained matrices are rounded before use: that of the checkpoint which ships.
DType stored_dtype(const recipe::Recipe& recipe, const model::BaseWeights& base) {
  return recipe.quant.merge_dtype == recipe::MergeDtype::F32 ? DType::F32 : base.storage();
}

}  // namespace

TrainedParts::TrainedParts(const recipe::Recipe& recipe, const model::CheckpointReader& reader, model::BaseWeights& base)
    : reader_(reader) {
  const model::TensorTable& table = reader.table();
  if (recipe.train.mode == recipe::TrainMode::Lora) {
    adapters_ =
        std::make_unique<model::Adapters>(table, lora_config(recipe.lora), static_cast<std::uint64_t>(recipe.train.seed));
    if (recipe.lora.adapter.empty()) require_used_patterns(table, *adapters_);
    model::to_peft_config(table, adapters_->config());  // throws now what could not be saved in the end
    list_.add(adapters_->array());
  }
  if (recipe.train.mode == recipe::TrainMode::Quantization) return;
  std::vector<std::size_t> own = adapters_ ? model::tensors_beside(table, *adapters_) : model::all_tensors(table);
  if (own.empty()) return;
  // What ships beside adapters is a checkpoint in its own dtype; only full fine-tuning keeps weights of its own.
  const DType stored = adapters_ ? base.storage() : stored_dtype(recipe, base);
  weights_ = std::make_unique<model::TrainedWeights>(reader, base, std::move(own), stored);
  list_.add(weights_->array());
}

void TrainedParts::begin(const ExecContext& ctx, const recipe::Recipe& recipe, const model::BaseWeights& base) {
  if (!adapters_) return;
  if (!recipe.lora.adapter.empty()) return take_first_adapter(ctx, recipe.lora, reader_, *adapters_, weights_.get());
  if (recipe.lora.init == recipe::LoraInit::LoftQ) begin_with_lost(ctx, recipe.model.path, base, *adapters_);
  if (recipe.lora.init == recipe::LoraInit::Pissa && !recipe.train.plan)
    begin_with_principal(std::filesystem::path(recipe.out) / model::kStartFolder, reader_.table(), *adapters_);
  adapters_->init_magnitudes(ctx, base);
}

void TrainedParts::save(const ExecContext& ctx, const std::filesystem::path& run, eval::RunInfo& info) const {
  info.full = weights_ && !adapters_;
  info.weights_stay = !adapters_ && !weights_;
  if (info.weights_stay) return;
  if (adapters_)
    return model::save_peft(*adapters_, reader_.table(), {info.base_model, base_fingerprint(reader_)}, run / kAdapterFolder,
                            weights_ ? weights_->masters() : std::vector<TensorView>());
  weights_->save(ctx, run / model::kTrainedWeightsName);
}

std::string TrainedParts::description() const {
  const double millions = static_cast<double>(list_.count()) * 1e-6;
  if (adapters_)
    return fmt::format("adapters of rank {}{}, {:.2f} M parameters", ranks(*adapters_),
                       weights_ ? fmt::format(" and {} tensors of the model", weights_->array().size()) : "", millions);
  return fmt::format("{}, {:.2f} M parameters", weights_ ? "every weight" : "scales and ranges of quantization", millions);
}

}  // namespace temper::train
