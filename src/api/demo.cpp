#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "api/engine.h"
#include "api/results.h"
#include "base/atomic_file.h"
#include "base/log.h"
#include "base/progress.h"
#include "eval/evaluate.h"
#include "export/export.h"
#include "temper/temper.h"
#include "text/word_problems.h"
#include "train/loop.h"

namespace temper::api {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kTrainRows = 3000, kTestRows = 200, kSteps = 50, kSeqLen = 512;
constexpr double kLearningRate = 1e-3;
constexpr const char* kScheme = "q4_0";

/// The demo's own values for what the user left open.
Recipe with_defaults(Recipe recipe, const fs::path& folder) {
  recipe.data.path = (folder / "data/train.jsonl").string();
  recipe.data.eval_path = (folder / "data/test.jsonl").string();
  if (recipe.train.steps == 0) recipe.train.steps = kSteps;
  recipe.train.epochs = 0;
  if (recipe.optim.lr == Recipe{}.optim.lr) recipe.optim.lr = kLearningRate;
  if (recipe.data.seq_len > kSeqLen) recipe.data.seq_len = kSeqLen;
  if (recipe.optim.warmup_steps == 0) recipe.optim.warmup_steps = std::min<std::int64_t>(10, recipe.train.steps);
  return recipe;
}

Recipe run_recipe(const Recipe& recipe, const fs::path& out, const std::string& scheme) {
  Recipe run = recipe;
  run.out = out.string();
  run.quant.scheme = scheme;
  run.train.eval_every = 0;
  run.data.eval_path.clear();  // scored once, at the end, from the files
  run.train.recompute = recipe::Recompute::None;
  return recipe::resolve(run, recipe::Verb::Train);
}

exporter::ExportReport export_run(const ExecContext& ctx, const fs::path& run, const std::string& to, const fs::path& out) {
  Recipe recipe;
  recipe.model.run = run.string();
  recipe.exporting.to = to;
  recipe.out = out.string();
  const exporter::ExportReport report = exporter::export_model(ctx, recipe);
  log_info("{}", exporter::to_text(report));
  return report;
}

Contender contender(std::string label, const fs::path& path, Contender::Kind kind, const exporter::ExportReport& file) {
  return {std::move(label), path, "none", kind, file.bits_per_weight, file.file_bytes};
}

}  // namespace

Outcome demo(const Recipe& given) {
  const auto begin = std::chrono::steady_clock::now();
  const fs::path folder = given.out;
  const Recipe recipe = with_defaults(given, folder);
  const Engine engine(recipe.runtime);
  const ExecContext& ctx = engine.context();
  const std::string source = model::CheckpointReader::open(recipe.model.path).formats();
  log_info("base model: {} ({})", recipe.model.path, source);

  status("writing word problems");
  text::write_word_problems((folder / "data").string(), static_cast<std::uint64_t>(recipe.train.seed), kTrainRows,
                            kTestRows);

  status("1/4  fine-tuning with LoRA in 16-bit");
  const auto tuned = train::train(ctx, run_recipe(recipe, folder / "tuned", "none"));
  status("2/4  quantizing the tuned model (PTQ)");
  const auto bf16 = export_run(ctx, tuned.run, "gguf:bf16", folder / "tuned-bf16.gguf");
  const auto ptq = export_run(ctx, tuned.run, fmt::format("gguf:{}", kScheme), folder / "tuned-ptq-q4_0.gguf");
  status("3/4  fine-tuning with quantization-aware training");
  const auto qat = train::train(ctx, run_recipe(recipe, folder / "qat", kScheme));
  const auto file = export_run(ctx, qat.run, fmt::format("gguf:{}", kScheme), folder / "qat-q4_0.gguf");

  status("4/4  scoring on held-out problems");
  const auto tokenizer = text::Tokenizer::load(recipe.model.path);
  const auto rows = eval::load_rows(recipe.data.eval_path, recipe.data, tokenizer, kTestRows);
  const std::vector<Contender> contenders = {
      contender("base 16-bit", recipe.model.path, Contender::Kind::Base, bf16),
      contender("tuned 16-bit", tuned.run, Contender::Kind::Tuned, bf16),
      contender("tuned, then q4_0 (PTQ)", folder / "tuned-ptq-q4_0.gguf", Contender::Kind::Ptq, ptq),
      contender("QAT q4_0", folder / "qat-q4_0.gguf", Contender::Kind::Qat, file)};
  const auto table = score_contenders(ctx, contenders, rows.samples, recipe.eval);

  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const std::string text = fmt::format(
      "{}\nBase: {} ({}). {} steps each; {} held-out problems; QAT {:.0f} tokens/s, LoRA {:.0f} tokens/s; {:.0f} s in all.\n"
      "Verified: {}.\nRun it: temper chat --model {}, or llama-cli -m with the same file.\n",
      eval::results_text(table), recipe.model.path, source, recipe.train.steps, rows.report.rows, qat.tokens_per_second,
      tuned.tokens_per_second, seconds, file.promise, file.path);
  const nlohmann::ordered_json json = {{"results", eval::results_json(table)},
                                       {"base", source},
                                       {"steps", recipe.train.steps},
                                       {"tokens_per_s_lora", tuned.tokens_per_second},
                                       {"tokens_per_s_qat", qat.tokens_per_second},
                                       {"peak_rss_bytes", qat.peak_memory_bytes},
                                       {"seconds", seconds}};
  write_file(folder / "report.txt", text);
  write_file(folder / "report.json", json.dump(2) + "\n");
  return {text, json.dump()};
}

}  // namespace temper::api
