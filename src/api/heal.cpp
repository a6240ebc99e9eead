// temper heal: a model quantized with no data but what it writes itself.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "api/engine.h"
#include "api/measured_samples.h"
#include "base/atomic_file.h"
#include "base/log.h"
#include "base/progress.h"
#include "eval/compare.h"
#include "eval/text_sampling.h"
#include "export/export.h"
#include "temper/temper.h"
#include "train/fingerprint.h"
#include "train/loop.h"
#include "train/run_folder.h"

namespace temper::api {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr std::int64_t kTextWindows = 16;  // of a text that is measured, unless told otherwise

struct Measured {
  std::string on;  ///< "its own text, held out", or windows of a text.
  std::vector<text::Sample> samples;
  std::optional<eval::Comparison> before = {}, after = {};
};

class Healer {
 public:
  Healer(const ExecContext& ctx, const Recipe& recipe)
      : ctx_(ctx), recipe_(recipe), folder_(recipe.heal.folder.empty() ? recipe.out + ".heal" : recipe.heal.folder) {
    recipe_.exporting.to = exporter::quantize_target(recipe);  // refuses before any work
  }

  Outcome run() {
    write_texts();
    status(fmt::format("measuring {} before training", recipe_.quant.scheme));
    compare(recipe_.model.path, recipe_.quant.scheme, &Measured::before);
    train();
    status("measuring what training won back");
    compare(run_folder().string(), "none", &Measured::after);
    const exporter::ExportReport file = export_run();
    const Outcome outcome{text(file), json(file).dump()};
    write_file(folder_ / "report.txt", outcome.text);
    write_file(folder_ / "report.json", json(file).dump(2) + "\n");
    return outcome;
  }

 private:
  fs::path run_folder() const { return folder_ / "run"; }

  /// Texts to learn from, and before them those to measure on: more of the former leave the latter as they are.
  void write_texts() {
    const recipe::HealOptions& heal = recipe_.heal;
    const auto pieces = [&](std::int64_t tokens) { return (tokens + heal.length - 1) / heal.length; };
    const std::int64_t held_out = pieces(heal.held_out_tokens);
    const auto model = eval::LoadedModel::open(ctx_, recipe_.model.path);
    log_info("{}", model->description());
    std::vector<text::Sample> texts =
        eval::sample_texts(ctx_, *model, {heal.length, heal.batch, heal.temperature, static_cast<std::uint64_t>(heal.seed)},
                           held_out + pieces(heal.tokens), train::base_fingerprint(model->reader()), folder_ / "texts");
    data_.train.assign(texts.begin() + held_out, texts.end());
    texts.resize(static_cast<std::size_t>(held_out));
    measured_.push_back({fmt::format("{} held-out texts of its own", held_out), std::move(texts)});
    if (recipe_.eval.text.empty()) return;
    MeasuredSamples given = measured_samples(recipe_, model->tokenizer(), kTextWindows);
    measured_.push_back({fmt::format("{}: {}", recipe_.eval.text, given.how), std::move(given.samples)});
  }

  void compare(const std::string& path, const std::string& scheme, std::optional<eval::Comparison> Measured::*which) {
    const auto original = eval::LoadedModel::open(ctx_, recipe_.model.path);
    const auto model = eval::LoadedModel::open(ctx_, path, scheme);
    eval::CompareOptions options;
    options.bootstrap = {recipe_.eval.bootstrap, static_cast<std::uint64_t>(recipe_.eval.seed)};
    for (Measured& m : measured_)
      m.*which = eval::compare(ctx_, model->transformer(), original->transformer(), m.samples, options);
  }

  /// Trains, or goes on where an earlier call was interrupted; a run that is finished is used as it is.
  void train() {
    Recipe run = recipe_;
    run.out = run_folder().string();
    run.train.objective = recipe::ObjectiveKind::Distill;
    if (run.lora.base_is_residual() && run.distill.teacher.empty()) run.distill.teacher = run.model.path;
    run.data.path = (folder_ / "texts").string();
    run.data.seq_len = recipe_.heal.length;
    run = recipe::resolve(run, recipe::Verb::Train);
    if (fs::exists(run_folder() / recipe::kRecipeFileName)) {
      Recipe stored;
      recipe::load_yaml(run_folder() / recipe::kRecipeFileName, stored);
      train::resumed_recipe(run, stored);  // throws where options differ that matter
      const bool longer = stored.train.steps != run.train.steps || stored.train.epochs != run.train.epochs;
      if (eval::is_run(run_folder()) && !longer) return log_info("{} is trained already", run.out);
      run.train.resume = run.out;
    }
    trained_ = train::train(ctx_, run, data_);
  }

  exporter::ExportReport export_run() {
    Recipe recipe = recipe_;
    recipe.model.path.clear();
    recipe.model.run = run_folder().string();
    recipe.quant.scheme = "none";  // the run's own
    return exporter::export_model(ctx_, recipe);
  }

  std::string text(const exporter::ExportReport& file) const {
    const auto interval = [](const eval::Estimate& e) {
      return fmt::format("{:.5f} [{:.5f}, {:.5f}]", e.value, e.low, e.high);
    };
    std::string text = fmt::format("{}KL divergence from the original, nats a token [95 % CI]:\n", exporter::to_text(file));
    for (const Measured& m : measured_)
      text +=
          fmt::format("  {}\n    rounded  {}  top-1 {:.2f} %\n    healed   {}  top-1 {:.2f} %  ({:.0f} % of it won back)\n",
                      m.on, interval(m.before->kld), 100 * m.before->top1_agreement.value, interval(m.after->kld),
                      100 * m.after->top1_agreement.value, 100 * (1 - m.after->kld.value / m.before->kld.value));
    return text + fmt::format("kept to go on with, or to use again: {}\n", folder_.string());
  }

  Json json(const exporter::ExportReport& file) const {
    const auto figures = [](const eval::Comparison& c) -> Json {
      return {{"kld", c.kld.value},
              {"kld_ci", {c.kld.low, c.kld.high}},
              {"top1_agreement", c.top1_agreement.value},
              {"tokens", c.tokens}};
    };
    Json list = Json::array();
    for (const Measured& m : measured_)
      list.push_back({{"on", m.on}, {"before", figures(*m.before)}, {"after", figures(*m.after)}});
    Json json = exporter::to_json(file);
    json["scheme"] = recipe_.quant.scheme;
    json["texts"] = data_.train.size();
    json["divergence"] = std::move(list);
    json["folder"] = folder_.string();
    if (trained_) json["tokens_per_s"] = trained_->tokens_per_second;
    return json;
  }

  const ExecContext& ctx_;
  Recipe recipe_;
  fs::path folder_;
  train::TrainData data_;
  std::vector<Measured> measured_;
  std::optional<train::TrainResult> trained_;
};

}  // namespace

Outcome heal(const Recipe& recipe) {
  const Engine engine(recipe.runtime);
  try {
    return Healer(engine.context(), recipe).run();
  } catch (const Interrupted& error) {
    throw Interrupted("{}; the same `temper heal` goes on from there", error.what());
  }
}

}  // namespace temper::api
