#include "export/export.h"

#include <fmt/ranges.h>
#include <unistd.h>

#include "base/progress.h"
#include "export/executorch.h"
#include "export/hf_export.h"
#include "export/verify.h"
#include "export/wire_export.h"
#include "model/peft.h"
#include "wires/carriers.h"

namespace temper::exporter {
namespace {

namespace fs = std::filesystem;

/// A file or folder written in a hidden folder beside its final name, which it takes on `publish`; removed otherwise.
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
    fs::rename(path(), final_);
  }

 private:
  fs::path final_, folder_;
};

void measure_size(ExportReport& report, const fs::path& path) {
  const auto reader = model::CheckpointReader::open(path);
  report.bits_per_weight = 8.0 * static_cast<double>(reader.weight_bytes()) / static_cast<double>(reader.weight_count());
  report.file_bytes = 0;
  if (fs::is_regular_file(path))
    report.file_bytes = fs::file_size(path);
  else
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

void export_gguf(const ExecContext& ctx, eval::LoadedModel& model, const ExportSource& source, const fs::path& path,
                 ExportReport& report) {
  const GgufTarget target = gguf_target(std::string_view(report.target).substr(5));
  write_gguf(ctx, source, target, path);
  status("reopening and verifying");
  verify_gguf_tensors(ctx, source, target, path);
  report.comparison = measure(ctx, model, path);
  report.as_trained = target.scheme && source.trained_scheme() == target.scheme;
  if (report.as_trained) require_same_answers(*report.comparison, path);
  report.promise = report.as_trained
                       ? "parameters and codes equal the trained ones bit for bit, answers equal, token ids equal"
                       : "tensors equal the merged weights in this format bit for bit, token ids equal";
}

/// The scheme of the model that a wire is to carry, checked against the model: before any work.
const quant::Scheme& scheme_for(const wires::Wire& wire, std::string_view target, const ExportSource& source) {
  const quant::Scheme* scheme = source.trained_scheme();
  if (!scheme)
    throw BadRecipe("export.to {}: the model is not quantized; give --scheme. Schemes that {} carries: {}", wire.name(),
                    wire.name(), fmt::join(wires::schemes_of(wire.name()), ", "));
  model::require_target(target, source.table(), *scheme, source.arch().dtype);
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

}  // namespace

ExportReport export_model(const ExecContext& ctx, const recipe::Recipe& recipe) {
  ExportReport report;
  report.target = recipe.exporting.to;
  report.path = recipe.out;
  const wires::Wire* wire = model::wire_of_target(report.target);  // refuse before any work
  if (report.target.starts_with("gguf:")) gguf_target(std::string_view(report.target).substr(5));
  const auto model =
      eval::LoadedModel::open(ctx, recipe.model.run.empty() ? recipe.model.path : recipe.model.run, recipe.quant.scheme);
  const ExportSource source(model->reader(), &model->tokenizer(), model->adapters(), model->encoded());
  const Aside out(recipe.out);
  if (report.target == "adapter") {
    const std::string base = model->run()->base_model;
    model::save_peft(*model->adapters(), source.table(), base, out.path());
    verify_adapter(*model->adapters(), source.table(), out.path());
    report.as_trained = true;
    report.promise = "adapter masters equal bit for bit";
    for (const auto& entry : fs::directory_iterator(out.path())) report.file_bytes += entry.file_size();
  } else if (report.target == "hf") {
    write_hf(ctx, source, out.path());
    verify_hf_tensors(ctx, source, out.path());
    report.comparison = measure(ctx, *model, out.path());
    report.promise = "tensors equal the merged weights bit for bit, token ids equal";
    measure_size(report, out.path());
  } else if (wire) {
    const bool program = report.target == "executorch";
    const fs::path folder = program ? out.path().parent_path() / "checkpoint" : out.path();
    export_wire(ctx, *model, source, *wire, folder, report);
    measure_size(report, folder);
    if (program) {
      make_executorch(folder, out.path());
      report.file_bytes = fs::file_size(out.path());
      report.promise += "; the program made of it by executorch";
    }
  } else {
    export_gguf(ctx, *model, source, out.path(), report);
    measure_size(report, out.path());
  }
  out.publish();
  return report;
}

ExportReport quantize(const ExecContext& ctx, const recipe::Recipe& recipe) {
  const quant::Scheme& scheme = quant::scheme(recipe.quant.scheme);
  const std::vector<std::string> targets = wires::targets_of(scheme);
  if (targets.empty() && recipe.exporting.to.empty()) {
    std::vector<std::string> carried;
    for (const quant::Scheme& other : quant::schemes())
      if (const auto others = wires::targets_of(other); !others.empty())
        carried.push_back(fmt::format("{} ({})", other.name, fmt::join(others, ", ")));
    throw BadRecipe(
        "scheme {}: no file format that temper writes can carry it; it trains and evaluates. Schemes that can be written: "
        "{}",
        scheme.name, fmt::join(carried, ", "));
  }
  ExportReport report;
  report.target = recipe.exporting.to.empty() ? targets.front() : recipe.exporting.to;
  report.path = recipe.out;
  if (report.target == "executorch")
    throw BadRecipe("export.to executorch: use `temper export --model MODEL --scheme int8-int4`");
  const wires::Wire* wire = model::wire_of_target(report.target);
  const auto reader = model::CheckpointReader::open(recipe.model.path);
  model::require_target(report.target, reader.table(), scheme, reader.arch().dtype);
  // A GGUF's tokenizer is copied as it stands.
  std::optional<text::Tokenizer> tokenizer;
  if (!reader.gguf() || wire) tokenizer.emplace(text::Tokenizer::load(recipe.model.path));
  const ExportSource source(reader, tokenizer ? &*tokenizer : nullptr);
  const Aside out(recipe.out);
  if (wire) {
    write_wire(ctx, source, *wire, scheme, out.path());
    verify_wire(ctx, source, scheme, out.path());
  } else {
    const GgufTarget target = gguf_target(std::string_view(report.target).substr(5));
    verify_gguf_bytes(reader.table(), write_gguf(ctx, source, target, out.path()), out.path());
  }
  measure_size(report, out.path());
  out.publish();
  report.promise = "rounded to nearest from the 16-bit weights; reopened, every tensor's bytes as they were made";
  return report;
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
        r.as_trained ? "against the training graph" : "not what was trained; measured against the training graph",
        c.kld.value, c.kld.low, c.kld.high, 100 * c.top1_agreement.value, c.tokens);
  }
  return text;
}

}  // namespace temper::exporter
