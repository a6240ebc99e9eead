#include "train/first_adapter.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"
#include "base/log.h"
#include "eval/run_info.h"
#include "model/peft.h"
#include "recipe/options.h"
#include "train/fingerprint.h"
#include "train/lora_options.h"
#include "train/run_folder.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;

// What an adapter's config says of itself.
constexpr std::array<std::string_view, 10> kOwn = {
    "lora.r",      "lora.alpha", "lora.target_modules", "lora.rank_pattern",    "lora.alpha_pattern",
    "lora.rslora", "lora.dora",  "lora.bias",           "lora.modules_to_save", "lora.layers_to_transform"};

bool has_adapter(const fs::path& folder) { return fs::is_regular_file(folder / "adapter_config.json"); }

fs::path adapter_folder(const fs::path& path) {
  if (has_adapter(path)) return path;
  if (eval::is_run(path)) {
    if (has_adapter(path / kAdapterFolder)) return path / kAdapterFolder;
    throw BadFile("lora.adapter: the run {} trained no adapter; give its exported model as model.path instead",
                  path.string());
  }
  throw BadFile(
      "lora.adapter: {} is neither a folder with adapter_config.json and adapter_model.safetensors, as peft writes it, nor "
      "a "
      "finished run",
      path.string());
}

/// The order of a list means nothing.
std::vector<std::string> values_of(const recipe::Option& option, const recipe::Recipe& recipe) {
  if (!recipe::is_list(option)) return {recipe::value_text(option, recipe)};
  std::vector<std::string> values = recipe::value_list(option, recipe);
  std::ranges::sort(values);
  return values;
}

/// "SmolLM2-135M-Instruct.Q4_1.gguf" as "smollm2135minstructq41gguf".
std::string plain_name(const std::string& path) {
  fs::path shown = fs::path(path).lexically_normal();
  if (shown.filename().empty()) shown = shown.parent_path();
  std::string name;
  for (const char c : shown.filename().string())
    if (std::isalnum(static_cast<unsigned char>(c))) name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return name;
}

/// The adapter of a run whose base was rounded less another one goes with no model.
void refuse_residual(const fs::path& folder) {
  const fs::path run = (folder / "..").lexically_normal();  // also where the folder is given with a slash behind it
  if (!eval::is_run(run)) return;
  const std::string init = eval::read_run_info(run).lora_init;
  if (init.empty()) return;
  throw BadRecipe(
      "lora.adapter: {} belongs to a base that was rounded less another adapter (lora.init {}), and to no model; {}",
      folder.string(), init,
      init == eval::kPissa ? "export it (export.to adapter), and give what that writes"
                           : "export a merged model (export.to hf), and give that as model.path");
}

void check_base(const model::PeftBase& base, const recipe::LoraOptions& lora, const model::CheckpointReader& reader) {
  if (lora.adapter_any_base) return;
  if (!base.fingerprint.empty()) {
    const std::string found = base_fingerprint(reader);
    if (base.fingerprint == found) return;
    throw BadRecipe(
        "lora.adapter: {} was trained on another base, {} (fingerprint {}), not on {} (fingerprint {}). Give that model and "
        "model.base_format, or, if this is the same one in another format, set lora.adapter_any_base",
        lora.adapter, base.name, base.fingerprint, reader.path().string(), found);
  }
  const std::string theirs = plain_name(base.name), ours = plain_name(reader.path().string());
  if (theirs.empty() || theirs.find(ours) != std::string::npos || ours.find(theirs) != std::string::npos) return;
  log_warning("lora.adapter: {} names {} as its base; shapes agree with those of {}, but is it the same model?",
              lora.adapter, base.name, reader.path().string());
}

}  // namespace

recipe::Recipe with_adapter_config(recipe::Recipe recipe) {
  const std::string& path = recipe.lora.adapter;
  if (path.empty() || (!recipe.train.resume.empty() && !fs::exists(path))) return recipe;
  const auto reader = model::CheckpointReader::open(recipe.model.path);
  recipe::Recipe found;
  found.lora = lora_options(model::read_peft_config(reader.table(), adapter_folder(path)));
  const recipe::Recipe defaults;
  recipe.lora.layers_to_transform = lora_options(lora_config(recipe.lora)).layers_to_transform;  // "0-2" as 0, 1, 2
  for (const std::string_view key : kOwn) {
    const recipe::Option& option = recipe::require_option(key, path);
    const auto given = values_of(option, recipe), theirs = values_of(option, found);
    if (given != theirs && given != values_of(option, defaults))
      throw BadRecipe("{} ({}) contradicts lora.adapter: {} has {}; leave {} out, or begin without the adapter", key,
                      recipe::value_text(option, recipe), path, recipe::value_text(option, found), key);
    recipe::assign(option, recipe, recipe::value_text(option, found), path);
  }
  return recipe;
}

void take_first_adapter(const ExecContext& ctx, const recipe::LoraOptions& lora, const model::CheckpointReader& reader,
                        model::Adapters& adapters, model::TrainedWeights* weights) {
  const fs::path folder = adapter_folder(lora.adapter);
  refuse_residual(folder);
  std::vector<Tensor> beside;
  const model::Adapters first = model::load_peft(reader.table(), folder, &beside);
  check_base(model::read_peft_base(folder), lora, reader);
  if (first.parameters().shape != adapters.parameters().shape || beside.empty() != (weights == nullptr))
    throw BadFile("{}: has changed since its config was read", folder.string());
  ops::convert(ctx, first.parameters(), adapters.parameters());
  if (!weights) return;
  const std::vector<TensorView> masters = weights->masters();
  for (std::size_t i = 0; i < masters.size(); ++i)
    if (masters[i]) ops::convert(ctx, beside[i], masters[i]);
}

}  // namespace temper::train
