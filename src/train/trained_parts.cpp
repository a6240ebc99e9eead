#include "train/trained_parts.h"

#include "base/error.h"
#include "model/peft.h"
#include "train/fingerprint.h"
#include "train/first_adapter.h"
#include "train/run_folder.h"

namespace temper::train {
namespace {

model::LoraConfig lora_config(const recipe::Recipe& recipe) {
  const recipe::LoraOptions& lora = recipe.lora;
  if (lora.r < 1)
    throw BadRecipe("lora.r: expected at least 1, found {}: give train.mode full to train all weights", lora.r);
  if (lora.dropout > 0)
    throw Unsupported("lora.dropout ({}): adapters are trained without dropout here; set it to 0", lora.dropout);
  return {
      lora.r, lora.alpha, lora.rslora, lora.target_modules, static_cast<model::LoraBias>(lora.bias), lora.modules_to_save};
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
    adapters_ = std::make_unique<model::Adapters>(table, lora_config(recipe), static_cast<std::uint64_t>(recipe.train.seed));
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

void TrainedParts::take_adapter(const ExecContext& ctx, const recipe::LoraOptions& lora) {
  take_first_adapter(ctx, lora, reader_, *adapters_, weights_.get());
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
    return fmt::format("adapters of rank {}{}, {:.2f} M parameters", adapters_->config().r,
                       weights_ ? fmt::format(" and {} tensors of the model", weights_->array().size()) : "", millions);
  return fmt::format("{}, {:.2f} M parameters", weights_ ? "every weight" : "scales and ranges of quantization", millions);
}

}  // namespace temper::train
