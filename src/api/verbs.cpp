#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "api/engine.h"
#include "api/results.h"
#include "base/atomic_file.h"
#include "base/log.h"
#include "eval/evaluate.h"
#include "eval/generate.h"
#include "export/export.h"
#include "temper/temper.h"
#include "text/inspect.h"
#include "train/loop.h"

namespace temper::api {
namespace {

using Json = nlohmann::ordered_json;

std::string model_path(const Recipe& recipe) { return recipe.model.run.empty() ? recipe.model.path : recipe.model.run; }

std::unique_ptr<eval::LoadedModel> open(const ExecContext& ctx, const Recipe& recipe) {
  auto model = eval::LoadedModel::open(ctx, model_path(recipe), recipe.quant.scheme);
  log_info("{}", model->description());
  return model;
}

/// The base, the reference run with its quantization, and the run itself, as far as they exist.
std::vector<Contender> contenders_of(const Recipe& recipe, const train::TrainResult& result) {
  std::vector<Contender> out = {{"base 16-bit", result.info.base_model, "none", Contender::Kind::Base, 0, 0}};
  const std::string& scheme = result.info.scheme;
  if (scheme == "none") {
    out.push_back({"tuned 16-bit", result.run, "none", Contender::Kind::Tuned, 0, 0});
    return out;
  }
  if (!recipe.eval.reference.empty()) {
    out.push_back({"tuned 16-bit", recipe.eval.reference, "none", Contender::Kind::Tuned, 0, 0});
    out.push_back({fmt::format("tuned, then {} (PTQ)", scheme), recipe.eval.reference, scheme, Contender::Kind::Ptq, 0, 0});
  } else {
    out.push_back({fmt::format("base, then {} (PTQ)", scheme), result.info.base_model, scheme, Contender::Kind::Base, 0, 0});
  }
  out.push_back({"QAT " + scheme, result.run, "none", Contender::Kind::Qat, 0, 0});
  return out;
}

Json generation_json(const eval::Generation& generation) {
  return {{"text", generation.text},
          {"tokens", generation.ids.size()},
          {"ids", generation.ids},
          {"prompt_tokens", generation.prompt_tokens},
          {"stop", eval::stop_reason_name(generation.stop)},
          {"prompt_seconds", generation.prompt_seconds},
          {"seconds", generation.seconds}};
}

Json plan_json(const train::RunPlan& plan) {
  Json parts, choices = Json::array(), bits = Json::object();
  for (const train::MemoryPart& part : plan.memory.parts) parts[part.name] = part.bytes;
  for (const train::MemoryChoice& choice : plan.choices)
    choices.push_back({{"recompute", train::recompute_name(choice.recompute)},
                       {"micro_batch", choice.micro_batch},
                       {"peak_bytes", choice.peak},
                       {"expected_time", choice.work / plan.choices.front().work}});
  for (const train::MemoryAtBits& at : plan.at_bits)
    bits[std::to_string(at.bits)] = {{"weights", at.weights}, {"peak_bytes", at.peak}};
  return {{"memory", parts}, {"peak_bytes", plan.memory.peak()},  {"choices", choices},  {"chosen", plan.chosen},
          {"at_bits", bits}, {"step_seconds", plan.step_seconds}, {"steps", plan.steps}, {"seconds", plan.seconds()}};
}

eval::GenerationOptions generation_options(const recipe::GenerateOptions& o) {
  eval::GenerationOptions options;
  options.sampling.temperature = o.temperature;
  options.sampling.top_p = o.top_p;
  options.sampling.top_k = o.top_k;
  options.seed = static_cast<std::uint64_t>(o.seed);
  options.max_tokens = o.max_tokens;
  return options;
}

}  // namespace

Outcome train(const Recipe& recipe) {
  const Engine engine(recipe.runtime);
  const train::TrainResult result = train::train(engine.context(), recipe);
  if (result.run_plan) return {result.run_plan->text(), plan_json(*result.run_plan).dump()};
  Json json = {{"run", result.run.string()},
               {"steps", result.info.steps},
               {"scheme", result.info.scheme},
               {"loss", result.last_loss},
               {"tokens", result.tokens},
               {"tokens_per_s", result.tokens_per_second},
               {"peak_rss_bytes", result.peak_memory_bytes},
               {"planned_bytes", result.plan.peak()}};
  std::string text =
      fmt::format("{}: {} steps, {} tokens, {:.0f} tokens/s, peak memory {:.2f} GB, planned {:.2f} GB\n",
                  result.run.string(), result.info.steps, result.tokens, result.tokens_per_second,
                  static_cast<double>(result.peak_memory_bytes) / 1e9, static_cast<double>(result.plan.peak()) / 1e9);
  // Rows of preferences are no rows to score answers on: the log has their figures.
  if (!recipe.data.eval_path.empty() && recipe.train.objective != recipe::ObjectiveKind::Dpo) {
    const auto tokenizer = text::Tokenizer::load(result.info.base_model);
    const auto rows = eval::load_rows(recipe.data.eval_path, recipe.data, tokenizer, recipe.train.eval_rows);
    const auto table = score_contenders(engine.context(), contenders_of(recipe, result), rows.samples, recipe.eval);
    text += "\n" + eval::results_text(table);
    json["results"] = eval::results_json(table);
    write_file(result.run / "report.txt", text);
  }
  write_file(result.run / "report.json", json.dump(2) + "\n");
  return {text, json.dump()};
}

Outcome export_model(const Recipe& recipe) {
  const Engine engine(recipe.runtime);
  const exporter::ExportReport report = exporter::export_model(engine.context(), recipe);
  return {exporter::to_text(report), exporter::to_json(report).dump()};
}

Outcome generate(const Recipe& recipe, const TextSink& sink) {
  const Engine engine(recipe.runtime);
  const auto model = open(engine.context(), recipe);
  eval::Generator generator(engine.context(), *model);
  const auto prompt =
      eval::prompt_ids(model->tokenizer(), recipe.generate.prompt, recipe.generate.system, recipe.generate.raw);
  eval::GenerationOptions options = generation_options(recipe.generate);
  options.part = eval::answer_part(model->tokenizer(), recipe.generate.raw);
  const eval::Generation generation = generator.generate(prompt, options, sink);
  log_info("{} tokens in {:.2f} s ({:.1f} tokens/s), prompt of {} in {:.2f} s; stopped: {}", generation.ids.size(),
           generation.seconds, static_cast<double>(generation.ids.size()) / std::max(generation.seconds, 1e-9),
           generation.prompt_tokens, generation.prompt_seconds, eval::stop_reason_name(generation.stop));
  return {generation.text + "\n", generation_json(generation).dump()};
}

void chat(const Recipe& recipe, const std::function<bool(std::string&)>& read_line, const TextSink& sink) {
  const Engine engine(recipe.runtime);
  const auto model = open(engine.context(), recipe);
  eval::ChatSession session(engine.context(), *model, recipe.generate.system);
  eval::GenerationOptions options = generation_options(recipe.generate);
  for (std::string line; read_line(line); ++options.seed) {
    if (line.empty()) continue;
    session.say(line, options, sink);
    sink("\n");
  }
}

Outcome inspect_data(const Recipe& recipe, bool colour) {
  const auto info =
      eval::is_run(model_path(recipe)) ? eval::read_run_info(model_path(recipe)).base_model : model_path(recipe);
  const auto tokenizer = text::Tokenizer::load(info);
  text::Dataset dataset = eval::load_rows(recipe.data.path, recipe.data, tokenizer, 0);
  // Rows are counted from 1 by their line in the file.
  auto& samples = dataset.samples;
  std::erase_if(samples, [&](const text::Sample& s) { return s.row < recipe.inspect.row; });
  if (samples.empty())
    throw BadRecipe("inspect.row {}: {} has {} rows, and none from there on has anything to learn", recipe.inspect.row,
                    recipe.data.path, dataset.report.rows);
  const text::InspectOptions options{.colour = colour, .ids = recipe.runtime.verbose, .rows = recipe.inspect.count};
  const text::DatasetReport& r = dataset.report;
  const Json json = {{"rows", r.rows},
                     {"samples", r.samples},
                     {"tokens", r.tokens},
                     {"labelled", r.labelled_tokens},
                     {"rows_without_labels", r.rows_without_labels},
                     {"rows_cut", r.rows_cut},
                     {"missing_eos", r.missing_eos},
                     {"double_bos", r.double_bos}};
  return {text::inspect_dataset(dataset, tokenizer, options), json.dump()};
}

Outcome inspect(const Recipe& recipe) {
  const std::string path = model_path(recipe);
  const bool run = eval::is_run(path);
  const auto reader = model::CheckpointReader::open(run ? eval::read_run_info(path).base_model : path);
  std::string text = fmt::format("{}: {}\n{:<52} {:>16} {:>8} {:>12}\n", reader.path().string(), reader.formats(), "tensor",
                                 "shape", "dtype", "bytes");
  Json tensors = Json::array();
  for (std::size_t i = 0; i < reader.table().size(); ++i) {
    const model::TensorInfo& info = reader.table()[i];
    const model::StoredTensor stored = reader.stored(i);
    text += fmt::format("{:<52} {:>16} {:>8} {:>12}\n", info.hf_name, info.shape.str(), stored.format, stored.file_bytes);
    tensors.push_back(
        {{"name", info.hf_name}, {"shape", info.shape.dims()}, {"dtype", stored.format}, {"bytes", stored.file_bytes}});
  }
  const double bits = 8.0 * static_cast<double>(reader.weight_bytes()) / static_cast<double>(reader.weight_count());
  text +=
      fmt::format("{} tensors, {:.1f} M weights, {:.1f} MB, {:.2f} bits/weight\n", reader.table().size(),
                  static_cast<double>(reader.weight_count()) / 1e6, static_cast<double>(reader.weight_bytes()) / 1e6, bits);
  const Json json = {{"path", reader.path().string()}, {"format", reader.formats()}, {"weights", reader.weight_count()},
                     {"bytes", reader.weight_bytes()}, {"bits_per_weight", bits},    {"tensors", tensors}};
  return {text, json.dump()};
}

}  // namespace temper::api
