#include "export/export.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <functional>

#include "base/atomic_file.h"
#include "base/log.h"
#include "base/progress.h"
#include "export/executorch.h"
#include "export/gguf_in_place.h"
#include "export/gguf_lora.h"
#include "export/hf_export.h"
#include "export/modelfile.h"
#include "export/verify.h"
#include "export/wire_export.h"
#include "model/adapter_difference.h"
#include "model/base_format.h"
#include "model/peft.h"
#include "recipe/sizes.h"
#include "wires/carriers.h"

namespace temper::exporter {
namespace {

namespace fs = std::filesystem;

/// A file or folder written in a hidden folder beside its final name, which it takes on `publish`, with whatever else was
/// written there; removed otherwise.
class Aside {
 public:
  explicit Aside(fs::path final_path) : final_(std::move(final_path)) {
    while (!final_.has_filename() && final_.has_parent_path()) final_ = final_.parent_path();
    if (fs::is_directory(final_) && !fs::is_empty(final_))
      throw BadRecipe("out {}: a folder with files is there already; remove it, or choose another name", final_.string());
    folder_ = final_.parent_path() / fmt::format(".unverified.{}", ::getpid());
    fs::create_directories(folder_);
  }
  ~Aside() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  Aside(const Aside&) = delete;
  Aside& operator=(const Aside&) = delete;

  fs::path path() const { return folder_ / final_.filename(); }
  void publish() const {
    if (fs::is_directory(final_)) fs::remove(final_);  // empty, as the constructor saw
    std::vector<fs::path> names;
    for (const auto& entry : fs::directory_iterator(folder_)) names.push_back(entry.path().filename());
    std::ranges::sort(names, std::greater());  // the first part of a model last
    for (const fs::path& name : names) fs::rename(folder_ / name, final_.parent_path() / name);
  }

 private:
  fs::path final_, folder_;
};

void measure_size(ExportReport& report, const fs::path& path) {
  const auto reader = model::CheckpointReader::open(path);
  report.bits_per_weight = 8.0 * static_cast<double>(reader.weight_bytes()) / static_cast<double>(reader.weight_count());
  report.file_bytes = reader.gguf() ? reader.gguf()->file_bytes() : 0;
  if (fs::is_directory(path))
    for (const auto& entry : fs::recursive_directory_iterator(path))
      if (entry.is_regular_file()) report.file_bytes += entry.file_size();
}

/// How far the file's answers are from the training graph's.
eval::Comparison measure(const ExecContext& ctx, eval::LoadedModel& trained, const fs::path& path) {
  status(fmt::format("comparing {} with the training graph", path.filename().string()));
  const auto reopened = eval::LoadedModel::open(ctx, path);
  verify_token_ids(trained.tokenizer(), reopened->tokenizer(), path);
  const std::vector<text::Sample> probes = probe_samples(trained.tokenizer(), trained.arch().max_positions);
  eval::CompareOptions options;
  options.progress = "verify";
  return eval::compare(ctx, reopened->transformer(), trained.transformer(), probes, options);
}

void require_same_answers(const eval::Comparison& comparison, const fs::path& path) {
  if (comparison.kld.value <= kStrictKld && comparison.top1_agreement.value == 1.0) return;
  throw VerifyFailed(
      "{}: codes and parameters are those that were trained, but its answers differ: KL divergence {:.3g} nats a token "
      "(at most {} expected), top-1 agreement {:.4f}; nothing was exported",
      path.string(), comparison.kld.value, kStrictKld, comparison.top1_agreement.value);
}

std::uint64_t split_bytes(const recipe::ExportOptions& options) {
  return options.split_size.empty() ? 0 : recipe::parse_size(options.split_size, "export.split_size");
}

/// Beside a GGUF, if asked for.
void write_modelfile(const recipe::Recipe& recipe, const text::Tokenizer& tokenizer, const fs::path& gguf,
                     const std::string& base = {}) {
  if (!recipe.exporting.modelfile) return;
  const std::string file = "./" + gguf.filename().string();
  const ModelfileOptions options = {base.empty() ? file : base, base.empty() ? "" : file, recipe.generate.system};
  write_file(modelfile_path(gguf), modelfile(tokenizer, options));
}

/// Of a run whose base was rounded less an adapter: what training has added to that, for the model as its file has it.
model::Adapters added_by_training(eval::LoadedModel& model, std::string_view target) {
  const eval::RunInfo& run = *model.run();
  if (run.lora_init != eval::kPissa)
    throw BadRecipe(
        "export.to {}: the adapter of {} (lora.loftq_iterations above 1) belongs to a base that was rounded less another "
        "adapter, which no other program makes of {}; export a merged model (hf, gguf:SCHEME), or train with "
        "lora.loftq_iterations 1",
        target, model.path().string(), run.base_model);
  log_warning(
      "lora.init pissa: the adapter is written with twice its rank, as what training has added to the principal components "
      "of {}. On those weights it gives what was trained but for the rounding of the base to {}; a merged model (hf) gives "
      "all of it",
      run.base_model, run.base_format);
  return model::adapter_difference(model.reader().table(), *model.adapters(),
                                   model::load_peft(model.reader().table(), model.path() / model::kStartFolder));
}

/// The adapter alone, as a folder for peft or as GGUF.
void export_adapter(eval::LoadedModel& model, const fs::path& path, ExportReport& report) {
  const model::TensorTable& table = model.reader().table();
  const bool residual = !model.run()->lora_init.empty();
  std::optional<model::Adapters> added;
  if (residual) added = added_by_training(model, report.target);
  const model::Adapters& adapters = added ? *added : *model.adapters();
  if (report.target == "gguf-lora") {
    write_gguf_lora(adapters, table, path.stem().string(), path);
    require_same_adapters(adapters, read_gguf_lora(table, files::GgufFile(path)), path);
    report.file_bytes = fs::file_size(path);
  } else {
    model::PeftBase base = model::read_peft_base(model.path() / "adapter");
    if (residual) base.fingerprint.clear();  // of no file
    model::save_peft(adapters, table, base, path, {model.beside().begin(), model.beside().end()});
    verify_adapter(adapters, table, model.beside(), path);
    for (const auto& entry : fs::directory_iterator(path)) report.file_bytes += entry.file_size();
  }
  report.as_trained = !residual && (report.target == "adapter" || model.encoded() == nullptr);
  report.promise = "adapter masters equal bit for bit";
  if (residual) report.promise += ", of twice the rank: what training has added";
}

/// A quantized GGUF in its own layout, what was trained in its own types.
void export_in_place(const ExecContext& ctx, eval::LoadedModel& model, const ExportSource& source, const fs::path& out,
                     ExportReport& report) {
  if (model.run() && model.run()->base_format != model::kStoredFormat)
    throw BadRecipe("export.to gguf:same: the run's base was held in {}, not as its file has it", model.run()->base_format);
  write_gguf_in_place(ctx, source, out);
  status("reopening and verifying");
  verify_gguf_in_place(ctx, source, out);
  report.comparison = measure(ctx, model, out);
  report.as_trained = in_place_as_trained(source);
  if (report.as_trained) require_same_answers(*report.comparison, out);
  report.promise = report.as_trained
                       ? "trained tensors' codes equal the trained ones bit for bit, all others the file's; answers equal"
                       : "trained tensors equal the merged weights in their own types, all others the file's bit for bit";
  measure_size(report, out);
}

/// Merging onto a base in number formats is another thing than merging onto the 16-bit model; says what it costs.
void warn_of_quantized_base(eval::LoadedModel& model, std::string_view target) {
  if (!model.adapters() || target == "adapter" || target == "gguf-lora" || !model::is_quantized(model.reader())) return;
  const std::optional<eval::RunInfo>& run = model.run();
  std::string cost = "the 16-bit weights that the file was made of are not at hand";
  if (run && !run->lora_init.empty())
    cost = fmt::format("it is what {} rounds to less the adapter in {}", run->base_model,
                       (model.path() / model::kStartFolder).string());
  else if (run && run->base_format != model::kStoredFormat)
    cost = fmt::format("it is {:.1f} % away from the 16-bit weights of {} (relative, over all its matrices)",
                       100 * model::relative_error(model.reader(), model::CheckpointReader::open(run->base_model)),
                       run->base_model);
  log_warning(
      "adapters are merged onto the base as it was held in training, decoded from {}: that is what was trained, but {}. "
      "Rounding the result anew costs what the comparison with the training graph says{}",
      model.reader().formats(), cost,
      run && run->lora_init.empty() ? "; the adapter alone is exact (export.to adapter, gguf-lora)" : "");
}

void export_gguf(const ExecContext& ctx, eval::LoadedModel& model, const ExportSource& source, const fs::path& out,
                 std::uint64_t split_bytes, ExportReport& report) {
  const GgufTarget target = gguf_target(std::string_view(report.target).substr(5));
  const fs::path path = write_gguf(ctx, source, target, out, split_bytes).path;
  status("reopening and verifying");
  verify_gguf_tensors(ctx, source, target, path);
  report.comparison = measure(ctx, model, path);
  report.as_trained = target.scheme && source.trained_scheme() == target.scheme;
  if (report.as_trained) require_same_answers(*report.comparison, path);
  report.promise = report.as_trained
                       ? "parameters and codes equal the trained ones bit for bit, answers equal, token ids equal"
                       : "tensors equal the merged weights in this format bit for bit, token ids equal";
  measure_size(report, path);
  report.path = fs::path(report.path).replace_filename(path.filename()).string();
}

std::string quantize_promise(std::string_view how) {
  return fmt::format("{} from the 16-bit weights; reopened, every tensor's bytes as they were made", how);
}

/// Writes a quantized model as `target`: the codes of `source` or, without codes at hand, rounded to nearest.
ExportReport write_quantized(const ExecContext& ctx, const recipe::Recipe& recipe, const ExportSource& source,
                             const text::Tokenizer* tokenizer, const GgufTarget& target, std::string_view name) {
  ExportReport report;
  report.target = name;
  report.path = recipe.out;
  const Aside out(recipe.out);
  const WrittenGguf written = write_gguf(ctx, source, target, out.path(), split_bytes(recipe.exporting));
  verify_gguf_bytes(source, written.pieces, written.path);
  measure_size(report, written.path);
  if (tokenizer) write_modelfile(recipe, *tokenizer, written.path);
  report.path = fs::path(report.path).replace_filename(written.path.filename()).string();
  out.publish();
  return report;
}

ExportReport write_quantized_folder(const ExecContext& ctx, const recipe::Recipe& recipe, const ExportSource& source,
                                    const wires::Wire& wire, const quant::Scheme& scheme) {
  ExportReport report;
  report.target = wire.name();
  report.path = recipe.out;
  const Aside out(recipe.out);
  write_wire(ctx, source, wire, scheme, out.path());
  verify_wire(ctx, source, scheme, out.path());
  measure_size(report, out.path());
  out.publish();
  return report;
}

/// A scheme as GGUF or through a wire: the codes of `source` or, without codes at hand, rounded to nearest.
ExportReport write_scheme(const ExecContext& ctx, const recipe::Recipe& recipe, const ExportSource& source,
                          const text::Tokenizer* tokenizer, std::string_view target,
                          const std::optional<ImportanceNote>& importance) {
  const quant::Scheme& scheme = quant::scheme(recipe.quant.scheme);
  model::require_target(target, source.table(), scheme, source.arch().dtype, model::PartsFit::Together);
  if (const wires::Wire* wire = model::wire_of_target(target))
    return write_quantized_folder(ctx, recipe, source, *wire, scheme);
  GgufTarget gguf = gguf_target(target.substr(5));
  gguf.importance = importance;
  return write_quantized(ctx, recipe, source, tokenizer, gguf, target);
}

/// A model on disk, rounded to nearest one tensor at a time by `write`, which gets it and its tokenizer, or null where GGUF
/// is made of GGUF: that tokenizer is copied as it stands.
template <class Write>
ExportReport round_to_nearest(const recipe::Recipe& recipe, const model::CheckpointReader& reader, bool to_gguf,
                              Write&& write) {
  std::optional<text::Tokenizer> tokenizer;
  if (!reader.gguf() || !to_gguf || recipe.exporting.modelfile) tokenizer.emplace(text::Tokenizer::load(recipe.model.path));
  const text::Tokenizer* at_hand = tokenizer ? &*tokenizer : nullptr;
  ExportReport report = write(ExportSource(reader, at_hand), at_hand);
  report.promise = quantize_promise("rounded to nearest");
  return report;
}

/// The scheme of the model that a wire is to carry, checked against the model: before any work.
const quant::Scheme& scheme_for(const wires::Wire& wire, std::string_view target, const ExportSource& source) {
  const quant::Scheme* scheme = source.trained_scheme();
  if (!scheme)
    throw BadRecipe("export.to {}: the model is not quantized; give --scheme. Schemes that {} carries: {}", wire.name(),
                    wire.name(), fmt::join(wires::schemes_of(wire.name()), ", "));
  model::require_target(target, source.table(), *scheme, source.arch().dtype, model::PartsFit::Apart);
  return *scheme;
}

/// A scheme's codes in a wire's layout: of a run as trained, else rounded to nearest now.
void export_wire(const ExecContext& ctx, eval::LoadedModel& model, const ExportSource& source, const wires::Wire& wire,
                 const fs::path& folder, ExportReport& report) {
  const quant::Scheme& scheme = scheme_for(wire, report.target, source);
  write_wire(ctx, source, wire, scheme, folder);
  status("reopening and verifying");
  verify_wire(ctx, source, scheme, folder);
  report.comparison = measure(ctx, model, folder);
  require_same_answers(*report.comparison, folder);
  report.as_trained = model.run() && model.run()->scheme == scheme.name;
  report.promise = fmt::format("parameters and codes equal the {} bit for bit, answers equal, token ids equal",
                               report.as_trained ? "trained ones" : "merged weights rounded to nearest");
}

void export_executorch(const ExecContext& ctx, eval::LoadedModel& model, const ExportSource& source, const fs::path& program,
                       ExportReport& report) {
  const model::ArchSpec& arch = source.arch();
  if (arch.architecture->model_type != "llama" ||
      (arch.rope.kind != model::RopeKind::Default && arch.rope.kind != model::RopeKind::Llama3))
    throw Unsupported(
        "export.to executorch: programs are made of Llamas (model_type llama, rotary frequencies plain or llama3), this is "
        "{}",
        arch.architecture->model_type);
  const fs::path folder = program.parent_path() / "checkpoint";
  export_wire(ctx, model, source, *model::wire_of_target(report.target), folder, report);
  measure_size(report, folder);
  make_executorch(folder, program);
  fs::remove_all(folder);
  report.file_bytes = fs::file_size(program);
  report.promise += "; the program made of it by executorch";
}

}  // namespace

ExportReport export_model(const ExecContext& ctx, const recipe::Recipe& recipe) {
  ExportReport report;
  report.target = recipe.exporting.to;
  report.path = recipe.out;
  const wires::Wire* wire = model::wire_of_target(report.target);  // refuse before any work
  const bool in_place = report.target == fmt::format("gguf:{}", kSameTarget);
  if (in_place && (recipe.exporting.modelfile || !recipe.exporting.split_size.empty()))
    throw BadRecipe(
        "export.to gguf:same writes one file in the layout of another; leave export.split_size and "
        "export.modelfile out");
  if (report.target.starts_with("gguf:") && !in_place) gguf_target(std::string_view(report.target).substr(5));
  if (report.target == "executorch") require_executorch();
  const auto model =
      eval::LoadedModel::open(ctx, recipe.model.run.empty() ? recipe.model.path : recipe.model.run, recipe.quant.scheme);
  const ExportSource source(model->reader(), &model->tokenizer(), model->adapters(), model->encoded());
  if ((report.target == "adapter" || report.target == "gguf-lora") && !model->adapters())
    throw BadRecipe("export.to {}: {} trained every weight and has no adapter; export hf, gguf:SCHEME or a quantized folder",
                    report.target, recipe.model.run);
  if (report.target == "gguf-lora" && !model->beside().empty())
    throw BadRecipe(
        "export.to gguf-lora: {} has trained biases, embeddings or head, which a GGUF adapter does not hold; export "
        "adapter, or a merged model",
        recipe.model.run);
  if (in_place && (!model->beside().empty() || (model->run() && model->run()->full)))
    throw BadRecipe(
        "export.to gguf:same: {} trained more than adapters, for which the file's layout has no place; export "
        "another target",
        recipe.model.run);
  warn_of_quantized_base(*model, report.target);
  const Aside out(recipe.out);
  if (in_place) {
    export_in_place(ctx, *model, source, out.path(), report);
  } else if (report.target == "adapter") {
    export_adapter(*model, out.path(), report);
  } else if (report.target == "gguf-lora") {
    export_adapter(*model, out.path(), report);
    write_modelfile(recipe, model->tokenizer(), out.path(), model->run()->base_model);
  } else if (report.target == "hf") {
    write_hf(ctx, source, out.path());
    verify_hf_tensors(ctx, source, out.path());
    report.comparison = measure(ctx, *model, out.path());
    report.promise = "tensors equal the merged weights bit for bit, token ids equal";
    measure_size(report, out.path());
  } else if (report.target == "executorch") {
    export_executorch(ctx, *model, source, out.path(), report);
  } else if (wire) {
    export_wire(ctx, *model, source, *wire, out.path(), report);
    measure_size(report, out.path());
  } else {
    export_gguf(ctx, *model, source, out.path(), split_bytes(recipe.exporting), report);
    write_modelfile(recipe, model->tokenizer(), out.path());
  }
  out.publish();
  return report;
}

ExportReport write_transformed(const ExecContext& ctx, const model::CheckpointReader& changed, eval::LoadedModel& original,
                               const fs::path& path) {
  ExportReport report;
  report.target = "hf";
  report.path = path.string();
  const ExportSource source(changed, &original.tokenizer());
  const Aside out(path);
  write_hf(ctx, source, out.path());
  verify_hf_tensors(ctx, source, out.path());
  report.comparison = measure(ctx, original, out.path());
  report.promise = "tensors equal the transformed weights bit for bit, token ids equal";
  measure_size(report, out.path());
  out.publish();
  return report;
}

std::string quantize_target(const recipe::Recipe& recipe) {
  const quant::Scheme& scheme = quant::scheme(recipe.quant.scheme);
  const recipe::ExportOptions& options = recipe.exporting;
  const std::vector<std::string> targets = wires::targets_of(scheme);
  if (targets.empty() && options.to.empty()) {
    std::vector<std::string> carried;
    for (const quant::Scheme& other : quant::schemes())
      if (const auto others = wires::targets_of(other); !others.empty())
        carried.push_back(fmt::format("{} ({})", other.name, fmt::join(others, ", ")));
    throw BadRecipe(
        "scheme {}: no file format that temper writes can carry it; it trains and evaluates. Schemes that can be written: "
        "{}",
        scheme.name, fmt::join(carried, ", "));
  }
  std::string target = options.to.empty() ? targets.front() : options.to;
  const bool gguf = target.starts_with("gguf:");
  if (!gguf && !wires::find_wire(target))
    throw BadRecipe("export.to {}: `temper quantize` writes {} files and folders; for others, there is `temper export`",
                    target, targets.empty() ? "quantized" : fmt::format("{}", fmt::join(targets, ", ")));
  if (!gguf && (options.modelfile || !options.split_size.empty()))
    throw BadRecipe("export.modelfile and export.split_size belong to GGUF files; the target is {}", target);
  return target;
}

ExportReport quantize(const ExecContext& ctx, const recipe::Recipe& recipe, const MadeCodes* codes) {
  const std::string target = quantize_target(recipe);
  if (codes) {
    eval::LoadedModel& model = codes->model;
    const ExportSource source(model.reader(), &model.tokenizer(), model.adapters(), model.encoded());
    ExportReport report = write_scheme(ctx, recipe, source, &model.tokenizer(), target, codes->importance);
    report.promise = quantize_promise(codes->how);
    return report;
  }
  const auto reader = model::CheckpointReader::open(recipe.model.path);
  const quant::Scheme& scheme = quant::scheme(recipe.quant.scheme);
  model::require_fit(reader.table(), scheme);
  log_info("{}", model::describe(reader.table(), scheme));
  return round_to_nearest(recipe, reader, model::wire_of_target(target) == nullptr,
                          [&](const ExportSource& source, const text::Tokenizer* tokenizer) {
                            return write_scheme(ctx, recipe, source, tokenizer, target, std::nullopt);
                          });
}

ExportReport quantize_mix(const ExecContext& ctx, const recipe::Recipe& recipe, std::vector<const quant::Codec*> codecs) {
  const auto reader = model::CheckpointReader::open(recipe.model.path);
  const GgufTarget target = mixed_target(reader.table(), std::move(codecs));
  return round_to_nearest(recipe, reader, true, [&](const ExportSource& source, const text::Tokenizer* tokenizer) {
    return write_quantized(ctx, recipe, source, tokenizer, target, "gguf, mixed");
  });
}

nlohmann::ordered_json to_json(const ExportReport& r) {
  nlohmann::ordered_json json = {{"path", r.path}, {"target", r.target}, {"bytes", r.file_bytes}};
  if (r.bits_per_weight > 0) json["bits_per_weight"] = r.bits_per_weight;
  json["as_trained"] = r.as_trained;
  json["verified"] = r.promise;
  if (r.comparison) {
    json["kld"] = r.comparison->kld.value;
    json["kld_ci"] = {r.comparison->kld.low, r.comparison->kld.high};
    json["top1_agreement"] = r.comparison->top1_agreement.value;
    json["compared_tokens"] = r.comparison->tokens;
  }
  return json;
}

std::string to_text(const ExportReport& r) {
  std::string text = fmt::format("{}  {}  {:.1f} MB", r.path, r.target, static_cast<double>(r.file_bytes) / 1e6);
  if (r.bits_per_weight > 0) text += fmt::format("  {:.2f} bits/weight", r.bits_per_weight);
  text += fmt::format("\nverified: {}\n", r.promise);
  if (r.comparison) {
    const eval::Comparison& c = *r.comparison;
    text += fmt::format(
        "{}: KL divergence {:.3g} nats a token [{:.3g}, {:.3g}], top-1 agreement {:.2f} % over {} tokens\n",
        r.as_trained ? "against the training graph" : "not what was trained; measured against the model it was made from",
        c.kld.value, c.kld.low, c.kld.high, 100 * c.top1_agreement.value, c.tokens);
  }
  return text;
}

}  // namespace temper::exporter
