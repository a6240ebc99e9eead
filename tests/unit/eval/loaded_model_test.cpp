// Models, runs and in-memory quantization behind one door; evaluation reports; generation.
#include "eval/loaded_model.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "eval/choices.h"
#include "eval/evaluate.h"
#include "eval/generate.h"
#include "model/peft.h"
#include "ops/cpu/cpu_backend.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::eval {
namespace {

class Models : public ::testing::Test {
 protected:
  Arena arena_{std::size_t{1} << 32};
  ExecContext ctx_{&ops::cpu_backend(), &arena_, DType::F32};
  temper::testing::TemporaryFolder folder_;
  std::filesystem::path base_ = temper::testing::make_tiny_model("llama_untied", folder_ / "base");

  /// A run folder whose adapters are not zero.
  std::filesystem::path make_run(const std::string& scheme) {
    const std::filesystem::path run = folder_ / ("run-" + scheme);
    std::filesystem::create_directories(run);
    const model::CheckpointReader reader = model::CheckpointReader::open(base_);
    model::Adapters adapters(reader.table(), {.r = 4, .alpha = 8, .rslora = false, .target_modules = {}}, 5);
    Rng rng(6);
    for (const model::Adapters::Entry& entry : adapters.entries())
      for (float& x : entry.b.span<float>()) x = 0.2f * (rng.uniform() - 0.5f);
    save_peft(adapters, reader.table(), {base_.string()}, run / "adapter");
    RunInfo info{.base_model = base_.string(), .scheme = scheme, .steps = 3, .codes_checksum = ""};
    write_run_info(info, run);
    if (scheme != "none") {
      info.codes_checksum = codes_checksum(*LoadedModel::open(ctx_, run)->encoded());
      write_run_info(info, run);
    }
    return run;
  }

  std::filesystem::path write_rows() {
    std::string rows;
    for (const char* answer : {"the cat", "an inn in the den", "then 42", "FAB LAB", "no, never!"})
      rows +=
          nlohmann::json{
              {"messages", {{{"role", "user"}, {"content", "what is it?"}}, {{"role", "assistant"}, {"content", answer}}}}}
              .dump() +
          "\n";
    write_file(folder_ / "rows.jsonl", rows);
    return folder_ / "rows.jsonl";
  }
};

TEST_F(Models, RunInfoRoundTrip) {
  std::filesystem::create_directories(folder_ / "r");
  EXPECT_FALSE(is_run(folder_ / "r"));
  write_run_info({.base_model = "/models/a", .scheme = "q4_0", .merged_in_f32 = true, .steps = 60, .codes_checksum = "00ff"},
                 folder_ / "r");
  EXPECT_TRUE(is_run(folder_ / "r"));
  const RunInfo info = read_run_info(folder_ / "r");
  EXPECT_EQ(info.base_model, "/models/a");
  EXPECT_EQ(info.scheme, "q4_0");
  EXPECT_TRUE(info.merged_in_f32);
  EXPECT_EQ(info.steps, 60);
  EXPECT_EQ(info.codes_checksum, "00ff");
  EXPECT_TRUE(info.lora_init.empty());
  write_run_info({.base_model = "b", .base_format = "nf4", .base_checksum = "0a", .lora_init = kPissa, .codes_checksum = ""},
                 folder_ / "r");
  EXPECT_EQ(read_run_info(folder_ / "r").base_checksum, "0a");
  EXPECT_EQ(read_run_info(folder_ / "r").lora_init, kPissa);
  write_run_info({.base_model = "b", .lora_init = "olora", .codes_checksum = ""}, folder_ / "r");
  EXPECT_THROW(read_run_info(folder_ / "r"), BadFile);
  write_file(folder_ / "r" / "run.json", "{\"scheme\": \"none\", \"steps\": 1}");
  EXPECT_THROW(read_run_info(folder_ / "r"), BadFile);
}

TEST_F(Models, OpensWhatItIsGiven) {
  const auto plain = LoadedModel::open(ctx_, base_);
  EXPECT_FALSE(plain->from_run());
  EXPECT_EQ(plain->adapters(), nullptr);
  EXPECT_EQ(plain->encoded(), nullptr);
  EXPECT_NE(plain->description().find("base"), std::string::npos);
  const auto quantized = LoadedModel::open(ctx_, base_, "int8-sym");
  ASSERT_NE(quantized->encoded(), nullptr);
  EXPECT_NE(quantized->description().find("int8-sym"), std::string::npos);
  const auto tuned = LoadedModel::open(ctx_, make_run("none"));
  EXPECT_NE(tuned->adapters(), nullptr);
  EXPECT_EQ(tuned->encoded(), nullptr);
  const auto ptq = LoadedModel::open(ctx_, make_run("none"), "int8-sym");
  EXPECT_NE(ptq->encoded(), nullptr);
  const auto qat = LoadedModel::open(ctx_, make_run("int8-sym"));
  EXPECT_EQ(qat->description(), "run run-int8-sym (int8-sym, as trained)");
  // The same adapters, merged and rounded alike: quantizing after training and reading a QAT run make the same codes.
  EXPECT_EQ(codes_checksum(*ptq->encoded()), codes_checksum(*qat->encoded()));
  EXPECT_NE(codes_checksum(*ptq->encoded()), codes_checksum(*quantized->encoded()));
}

TEST_F(Models, RefusesOtherSchemesAndOtherCodes) {
  const std::filesystem::path run = make_run("int8-sym");
  EXPECT_THROW(LoadedModel::open(ctx_, run, "q8_0"), BadRecipe);
  EXPECT_NO_THROW(LoadedModel::open(ctx_, run, "int8-sym"));
  EXPECT_THROW(LoadedModel::open(ctx_, base_, "int4-sym-g32"), BadRecipe);  // 80 columns
  RunInfo info = read_run_info(run);
  info.codes_checksum = "0123456789abcdef";
  write_run_info(info, run);
  EXPECT_THROW(LoadedModel::open(ctx_, run), VerifyFailed);
}

TEST_F(Models, EvaluatesRowsTextAndChoices) {
  recipe::Recipe recipe;
  recipe.model.path = base_.string();
  recipe.data.path = write_rows().string();
  recipe.data.seq_len = 64;
  recipe.eval.reference = make_run("none").string();
  recipe.eval.text = (folder_ / "text.txt").string();
  recipe.eval.context = 16;
  std::string text;
  for (int i = 0; i < 20; ++i) text += "the inn in the den, an ant.\n";
  write_file(recipe.eval.text, text);
  recipe.eval.choices = (folder_ / "choices.jsonl").string();
  write_file(recipe.eval.choices,
             "{\"question\": \"what?\", \"choices\": [\"the\", \"an ant\"], \"answer\": 1}\n"
             "{\"question\": \"where?\", \"choices\": [\"in\", \"inn\", \"den\"], \"answer\": \"A\"}\n");
  const EvalReport report = evaluate(ctx_, recipe);
  const nlohmann::ordered_json json = to_json(report);
  for (const char* key : {"nll", "nll_ci", "tokens", "kld", "kld_ci", "top1_agreement", "reference_nll", "nll_difference",
                          "perplexity", "perplexity_ci", "reference_perplexity", "text_kld", "windows", "accuracy",
                          "accuracy_normalized", "model", "reference"})
    EXPECT_TRUE(json.contains(key)) << key;
  EXPECT_GT(json["kld"].get<double>(), 0.0);
  EXPECT_EQ(json["rows"], 5);
  EXPECT_NEAR(json["perplexity"].get<double>(), std::exp(json["text_nll"].get<double>()), 1e-9);
  EXPECT_EQ(json["windows"]["scored_tokens"].get<std::int64_t>(), json["text_tokens"].get<std::int64_t>());
  EXPECT_EQ(json["windows"]["scored_tokens"].get<std::int64_t>(), json["windows"]["tokens"].get<std::int64_t>() - 1);
  const std::string lines = to_text(report);
  for (const char* word : {"answer NLL", "perplexity", "KLD", "top-1", "length-normalised"})
    EXPECT_NE(lines.find(word), std::string::npos) << word;

  recipe.eval.reference.clear();
  recipe.eval.rows = 2;
  const nlohmann::ordered_json alone = to_json(evaluate(ctx_, recipe));
  EXPECT_FALSE(alone.contains("kld"));
  EXPECT_EQ(alone["rows"], 2);
  EXPECT_THROW(evaluate(ctx_, recipe::Recipe{}), BadRecipe);
}

TEST_F(Models, AgreesWithTheReferenceWhateverTheOrderOfTheFigures) {
  recipe::Recipe recipe;
  recipe.model.path = base_.string();
  recipe.data.path = write_rows().string();
  recipe.data.seq_len = 64;
  const double alone = evaluate(ctx_, recipe).data->score.nll.value;
  recipe.eval.reference = base_.string();
  const EvalReport report = evaluate(ctx_, recipe);
  EXPECT_NEAR(report.data->score.nll.value, alone, 2e-6);
  EXPECT_EQ(report.data->comparison->kld.value, 0.0);
}

TEST_F(Models, RefusesAReferenceWithAnotherVocabulary) {
  const std::filesystem::path other = temper::testing::make_tiny_model("llama_untied", folder_ / "other");
  std::string tokenizer = read_file(other / "tokenizer.json");
  const std::size_t at = tokenizer.find("\"z\":");
  ASSERT_NE(at, std::string::npos);
  tokenizer.replace(at, 4, "\"Z\":");
  write_file(other / "tokenizer.json", tokenizer);
  const auto a = LoadedModel::open(ctx_, base_), b = LoadedModel::open(ctx_, other);
  EXPECT_NO_THROW(require_same_vocabulary(*a, *a));
  EXPECT_THROW(require_same_vocabulary(*a, *b), BadRecipe);
}

TEST_F(Models, ChoicesFollowTheLikelihoods) {
  const auto loaded = LoadedModel::open(ctx_, base_);
  const text::Tokenizer& tokenizer = loaded->tokenizer();
  std::vector<ChoiceItem> items = {{"what is it?", {"the cat", "an ant in the den", "no"}, 0, 1},
                                   {"where ", {"in", "then"}, 1, 2}};
  const ChoiceReport report = score_choices(ctx_, loaded->transformer(), tokenizer, items);
  ASSERT_EQ(report.picked.size(), 2u);
  EXPECT_NEAR(report.chance, (1.0 / 3.0 + 1.0 / 2.0) / 2.0, 1e-12);
  double right = 0.0, right_normalized = 0.0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    std::vector<double> loss, per_byte;
    for (const std::string& choice : items[i].choices) {
      text::Sample sample;
      sample.ids = tokenizer.encode(items[i].question, true);
      sample.labelled.assign(sample.ids.size(), 0);
      for (const std::int32_t id : tokenizer.encode(i == 0 ? " " + choice : choice, true)) sample.ids.push_back(id);
      sample.labelled.resize(sample.ids.size(), 1);
      loss.push_back(score_samples(ctx_, loaded->transformer(), std::span(&sample, 1))[0].nll);
      per_byte.push_back(loss.back() / static_cast<double>(choice.size()));
    }
    const auto best = static_cast<std::size_t>(std::ranges::min_element(loss) - loss.begin());
    const auto best_per_byte = static_cast<std::size_t>(std::ranges::min_element(per_byte) - per_byte.begin());
    EXPECT_EQ(report.picked[i], best);
    EXPECT_EQ(report.picked_normalized[i], best_per_byte);
    right += best == items[i].answer ? 0.5 : 0.0;
    right_normalized += best_per_byte == items[i].answer ? 0.5 : 0.0;
  }
  EXPECT_EQ(report.accuracy.value, right);
  EXPECT_EQ(report.accuracy_normalized.value, right_normalized);
}

TEST_F(Models, ChoiceRowsAreChecked) {
  const auto answer_of = [&](const std::string& answer) {
    write_file(folder_ / "c.jsonl",
               "\n{\"question\": \"q\", \"choices\": [\"red\", \"green\", \"blue\"], \"answer\": " + answer + "}\n");
    return load_choices(folder_ / "c.jsonl").at(0).answer;
  };
  EXPECT_EQ(answer_of("2"), 2u);
  EXPECT_EQ(answer_of("\"green\""), 1u);
  EXPECT_EQ(answer_of("\"C\""), 2u);
  EXPECT_EQ(answer_of("\"a\""), 0u);
  for (const char* bad : {"3", "-1", "\"D\"", "\"purple\"", "1.5", "null", "[0]"})
    EXPECT_THROW(answer_of(bad), BadData) << bad;
  write_file(folder_ / "c.jsonl", "{\"question\": \"q\", \"choices\": [\"red\", \"blue\"], \"answer\": 0}\n{broken\n");
  try {
    load_choices(folder_ / "c.jsonl");
    FAIL();
  } catch (const BadData& error) {
    EXPECT_NE(std::string(error.what()).find("c.jsonl:2"), std::string::npos) << error.what();
  }
  EXPECT_EQ(load_choices(folder_ / "c.jsonl", 1).size(), 1u);
}

}  // namespace
}  // namespace temper::eval
