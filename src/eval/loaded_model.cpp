#include "eval/loaded_model.h"

#include "base/checksum.h"
#include "base/error.h"
#include "base/progress.h"
#include "model/base_format.h"
#include "model/kept_codes.h"
#include "model/peft.h"
#include "model/static_ranges.h"
#include "model/trained_weights.h"
#include "quant/scheme.h"

namespace temper::eval {
namespace {

constexpr const char* kNoScheme = "none";

void check_codes(const model::EncodedWeights& weights, const RunInfo& run, const std::filesystem::path& folder) {
  if (run.codes_checksum.empty()) return;
  const std::string found = codes_checksum(weights);
  if (found != run.codes_checksum)
    throw VerifyFailed(
        "{}: the codes made from the base and what was trained are not those that training ended with (checksum {}, "
        "expected "
        "{}); "
        "has the base model at {}, the adapter or weights.safetensors been changed?",
        folder.string(), found, run.codes_checksum, run.base_model);
}

model::CheckpointReader open_base_of(const ExecContext& ctx, const RunInfo& run, const std::filesystem::path& folder) {
  const std::filesystem::path less = run.lora_init.empty() ? std::filesystem::path() : folder / model::kStartFolder;
  model::CheckpointReader base = model::open_base(ctx, run.base_model, run.base_format, less);
  if (run.base_checksum.empty()) return base;
  if (const std::string found = model::base_checksum(base); found != run.base_checksum)
    throw VerifyFailed(
        "{}: the base in {} is not the one that was trained on (checksum {}, expected {}); has the model at {}{} been "
        "changed?",
        folder.string(), run.base_format, found, run.base_checksum, run.base_model,
        less.empty() ? std::string() : fmt::format(", or {}", less.string()));
  return base;
}

void merge_adapters(const ExecContext& ctx, const model::Adapters& adapters, model::BaseWeights& base) {
  for (std::size_t i = 0; i < base.table().size(); ++i) {
    const model::Adapters::Entry* entry = adapters.find(i);
    if (!entry) continue;
    Tensor merged(base.storage(), base.tensor(i).shape);
    ops::merge_lora(ctx, base.tensor(i), adapters.lora(*entry), merged);
    base.replace(ctx, i, std::move(merged));
  }
}

}  // namespace

std::unique_ptr<LoadedModel> LoadedModel::open(const ExecContext& ctx, const std::filesystem::path& path,
                                               const std::string& scheme, const CodeMaker* maker) {
  std::unique_ptr<LoadedModel> loaded(new LoadedModel);
  loaded->path_ = path;
  if (is_run(path)) loaded->run_ = read_run_info(path);
  const std::optional<RunInfo>& run = loaded->run_;
  const bool trained = run && run->scheme != kNoScheme;
  if (trained && scheme != kNoScheme && &quant::scheme(scheme) != &quant::scheme(run->scheme))
    throw BadRecipe(
        "{}: trained with scheme {}, asked for {}: codes of another scheme are not what was trained; leave the "
        "scheme out, or export the run to a 16-bit model and quantize that",
        path.string(), run->scheme, scheme);
  if (trained && maker)
    throw BadRecipe("{}: trained with scheme {}: its codes are made already; leave quant.method out", path.string(),
                    run->scheme);
  const std::string used = trained ? run->scheme : scheme;
  const quant::Scheme* formats = used == kNoScheme ? nullptr : &quant::scheme(used);

  const auto require_ranges = [&](const model::TensorTable& table) {
    if (maker || !formats || (trained && run->static_ranges) || !model::needs_ranges(table, *formats)) return;
    throw BadRecipe(
        "scheme {}: activations have static ranges, which nothing has measured; give --calibration (text, or JSONL of rows)",
        formats->name);
  };
  const std::filesystem::path base = run ? std::filesystem::path(run->base_model) : path;
  status(fmt::format("opening {}", base.string()));
  loaded->reader_ =
      std::make_unique<model::CheckpointReader>(run ? open_base_of(ctx, *run, path) : model::CheckpointReader::open(base));
  if (formats != nullptr) model::require_fit(loaded->reader_->table(), *formats);
  require_ranges(loaded->reader_->table());
  loaded->tokenizer_ =
      std::make_unique<text::Tokenizer>(text::Tokenizer::load(base).with_rows(loaded->reader_->arch().vocab_size));
  if (run && run->full) {
    loaded->replace_reader(model::with_trained_weights(*loaded->reader_, path / model::kTrainedWeightsName));
  } else if (run && !run->weights_stay) {
    loaded->adapters_ =
        std::make_unique<model::Adapters>(model::load_peft(loaded->reader_->table(), path / "adapter", &loaded->beside_));
    if (!loaded->beside_.empty()) loaded->replace_reader(model::with_masters(ctx, *loaded->reader_, loaded->beside_));
  }
  model::WeightSource* source = nullptr;
  if (formats == nullptr) {
    loaded->base_ = std::make_unique<model::BaseWeights>(*loaded->reader_, ctx.compute, model::Hold::Operands);
    if (loaded->adapters_) loaded->adapters_->prepare(ctx, *loaded->base_);
    source = loaded->base_.get();
  } else {
    status(fmt::format("making {} codes", used));
    loaded->base_ = std::make_unique<model::BaseWeights>(*loaded->reader_, ctx.compute,
                                                         maker ? model::Hold::Expanded : model::Hold::Stored);
    if (loaded->adapters_) loaded->adapters_->prepare(ctx, *loaded->base_);
    loaded->encoded_ = std::make_unique<model::EncodedWeights>(
        ctx, *loaded->base_, *formats, trained && run->merged_in_f32 ? DType::F32 : loaded->base_->storage(),
        maker ? maker->codes : model::Codes::Rounded);
    if (maker) {
      if (loaded->adapters_) merge_adapters(ctx, *loaded->adapters_, *loaded->base_);
      maker->fill(ctx, *loaded->encoded_, *loaded->tokenizer_);
    } else {
      std::vector<model::Encoding> how;
      if (trained && run->static_ranges) model::restore_ranges(path / model::kRangesName, *loaded->encoded_);
      if (trained && run->kept_codes) how = model::restore_kept_codes(ctx, path / model::kKeptCodesName, *loaded->encoded_);
      loaded->encoded_->encode(ctx, loaded->adapters_.get(), nullptr, how);
    }
    if (trained) check_codes(*loaded->encoded_, *run, path);
    source = loaded->encoded_.get();
  }
  loaded->transformer_ = std::make_unique<model::Transformer>(loaded->reader_->arch(), *source, loaded->adapters_.get(),
                                                              /*merged=*/formats != nullptr);
  return loaded;
}

void LoadedModel::replace_reader(model::CheckpointReader reader) {
  base_reader_ = std::move(reader_);
  reader_ = std::make_unique<model::CheckpointReader>(std::move(reader));
}

std::string LoadedModel::description() const {
  std::filesystem::path shown = path_.filename().empty() ? path_.parent_path() : path_;
  const std::string name = shown.filename().string();
  if (run_) {
    if (run_->scheme != kNoScheme) return fmt::format("run {} ({}, as trained)", name, run_->scheme);
    if (encoded_) return fmt::format("run {} (16-bit, adapters merged, quantized to {})", name, encoded_->scheme().name);
    return fmt::format("run {} (16-bit)", name);
  }
  if (encoded_) return fmt::format("{} ({}, quantized to {})", name, reader_->formats(), encoded_->scheme().name);
  return fmt::format("{} ({})", name, reader_->formats());
}

std::uint64_t stored_bytes(LoadedModel& model) {
  std::uint64_t bytes = 0;
  const model::TensorTable& table = model.reader().table();
  for (std::size_t i = 0; i < table.size(); ++i) {
    const quant::EncodedView codes = model.encoded() ? model.encoded()->encoded(i) : quant::EncodedView{};
    const std::size_t element = table[i].role == quant::Role::Norm ? sizeof(float) : dtype_size(model.arch().dtype);
    bytes += codes.codec ? codes.bytes.size() : static_cast<std::size_t>(table[i].shape.numel()) * element;
  }
  return bytes;
}

std::string codes_checksum(const model::EncodedWeights& weights) {
  Checksum checksum;
  for (std::size_t i = 0; i < weights.table().size(); ++i) checksum.add(weights.encoded(i).bytes);
  return checksum.hex();
}

}  // namespace temper::eval
