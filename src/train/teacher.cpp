#include "train/teacher.h"

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "base/error.h"
#include "eval/compare.h"
#include "model/kept_codes.h"
#include "model/trained_weights.h"
#include "text/tokenizer.h"
#include "train/fingerprint.h"
#include "train/run_folder.h"

namespace temper::train {
namespace {

bool any_trained(const model::BaseWeights& base) {
  for (std::size_t i = 0; i < base.table().size(); ++i)
    if (base.trained(i)) return true;
  return false;
}

}  // namespace

Teacher::Teacher(const ExecContext& ctx, const std::string& path, std::string_view key, const ObjectiveRun& run)
    : run_(run) {
  if (path.empty()) {
    model::WeightSource* source = &run.base;
    if (any_trained(run.base)) {
      held_ = std::make_unique<model::BaseWeights>(run.reader, ctx.compute, model::Hold::Stored);
      source = held_.get();
    }
    own_ = std::make_unique<model::Transformer>(run.reader.arch(), *source);
    return;
  }
  loaded_ = eval::LoadedModel::open(ctx, path);
  const text::Tokenizer tokenizer = text::Tokenizer::load(run.recipe.model.path);
  try {
    eval::require_same_vocabulary(eval::Vocabulary{run.recipe.model.path, run.reader.arch().vocab_size, &tokenizer},
                                  eval::Vocabulary{path, loaded_->arch().vocab_size, &loaded_->tokenizer()});
  } catch (const BadRecipe& error) {
    throw BadRecipe("{}: {}", key, error.what());
  }
}

std::size_t Teacher::bytes(WeightMemory& counted) {
  std::size_t bytes = 0;
  const auto parts =
      loaded_ ? counted.add(loaded_->base(), loaded_->encoded()) : counted.add(held_ ? *held_ : run_.base, nullptr);
  for (const MemoryPart& part : parts) bytes += part.bytes;
  const model::Adapters* adapters = loaded_ ? loaded_->adapters() : nullptr;
  return bytes + (adapters ? adapters->bytes() : 0);
}

std::string Teacher::description() const { return loaded_ ? loaded_->description() : "the base, unquantized"; }

std::string Teacher::fingerprint() const {
  if (!loaded_) return base_fingerprint(run_.reader);
  Checksum checksum;
  checksum.add(base_fingerprint(loaded_->reader()));
  if (!loaded_->from_run()) return base_fingerprint(loaded_->reader());
  checksum.add(loaded_->run()->scheme);
  checksum.add(loaded_->run()->codes_checksum);
  for (const std::filesystem::path& file :
       {loaded_->path() / kAdapterFolder / "adapter_model.safetensors", loaded_->path() / model::kTrainedWeightsName})
    if (std::filesystem::exists(file)) checksum.add(read_file(file));
  return checksum.hex();
}

}  // namespace temper::train
