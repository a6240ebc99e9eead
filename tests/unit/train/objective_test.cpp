// Distillation and preferences as objectives of a run.
#include "train/objective.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "eval/score.h"
#include "tiny_model.h"
#include "train/dpo.h"
#include "train/teacher_cache.h"
#include "train_fixture.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using testing::CpuContext;
using testing::log_of;
using testing::slurp;
using testing::stop_and_resume;
using testing::TinyRun;

struct Distilling : TinyRun {
  explicit Distilling(const std::string& scheme = "q4_0") : TinyRun({}, scheme) {
    recipe.train.objective = recipe::ObjectiveKind::Distill;
    data.held_out.clear();
  }
};

TEST(Distill, WithoutWeightItIsCrossEntropyBitForBit) {
  TinyRun tiny({}, "q4_0");
  tiny.recipe.train.micro_batch = 2;
  CpuContext cpu;
  train(cpu.ctx, tiny.recipe, tiny.data);
  recipe::Recipe other = tiny.to("other");
  other.train.objective = recipe::ObjectiveKind::Distill;
  other.distill.weight = 0;
  train(cpu.ctx, other, tiny.data);
  EXPECT_EQ(tiny.adapter("other"), tiny.adapter("run"));
}

TEST(Distill, ComesNearerToTheUnquantizedSelf) {
  for (const char* scheme : {"q4_0", "int4-sym-g32/int8-asym"}) {
    Distilling tiny(scheme);
    tiny.recipe.train.steps = 24;
    tiny.recipe.train.micro_batch = 1;
    tiny.recipe.distill.temperature = 2;
    CpuContext cpu;
    train(cpu.ctx, tiny.recipe, tiny.data);
    const auto log = log_of(tiny.folder / "run");
    double first = 0, last = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      first += log[i]["kl"].get<double>();
      last += log[log.size() - 1 - i]["kl"].get<double>();
    }
    EXPECT_GT(first, 0);
    EXPECT_LT(last, 0.8 * first) << scheme;
    EXPECT_NEAR(log[0]["loss"].get<double>(), 4 * log[0]["kl"].get<double>(), 1e-9);
    EXPECT_GT(log[0]["nll"].get<double>(), 1);
  }
}

TEST(Distill, WithoutASchemeNothingIsLeftToLearn) {
  Distilling tiny("none");
  tiny.recipe.train.steps = 2;
  CpuContext cpu;
  train(cpu.ctx, tiny.recipe, tiny.data);
  // Adapters begin at zero: student and teacher are one and the same.
  EXPECT_NEAR(log_of(tiny.folder / "run")[0]["kl"].get<double>(), 0, 1e-7);
}

TEST(Distill, FullTrainingHasTheFileAsItsTeacher) {
  Distilling tiny("q4_0");
  tiny.recipe.train.mode = recipe::TrainMode::Full;
  tiny.recipe.optim.lr = 3e-4;
  tiny.recipe.train.steps = 16;
  CpuContext cpu;
  train(cpu.ctx, tiny.recipe, tiny.data);
  const auto log = log_of(tiny.folder / "run");
  // The weights in training drift from those of the file: a teacher that drifted with them would end at 0.
  double first = 0, last = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    first += log[i]["kl"].get<double>();
    last += log[log.size() - 1 - i]["kl"].get<double>();
  }
  EXPECT_LT(last, first);
  EXPECT_GT(last, 0.1 * first);
}

TEST(Distill, AllOfTheTeachersLogitsInAFileAreAsGoodAsTheTeacher) {
  Distilling tiny;
  tiny.recipe.distill.temperature = 2;
  tiny.recipe.distill.weight = 0.7;
  CpuContext cpu;
  train(cpu.ctx, tiny.recipe, tiny.data);
  recipe::Recipe cached = tiny.to("cached");
  cached.distill.top_k = 96;  // the whole vocabulary
  train(cpu.ctx, cached, tiny.data);
  const auto a = log_of(tiny.folder / "run"), b = log_of(tiny.folder / "cached");
  // The first step's weights are the same; log p in the file has f32's precision.
  EXPECT_NEAR(a[0]["loss"].get<double>(), b[0]["loss"].get<double>(), 1e-5);
  EXPECT_NEAR(a[0]["grad_norm"].get<double>(), b[0]["grad_norm"].get<double>(), 1e-4 * a[0]["grad_norm"].get<double>());
}

TEST(Distill, FewLogitsAreALowerBound) {
  Distilling tiny;
  tiny.recipe.train.steps = 1;
  CpuContext cpu;
  double before = 0;
  for (const std::int64_t k : {2, 8, 32, 96}) {
    recipe::Recipe recipe = tiny.to("k" + std::to_string(k));
    recipe.distill.top_k = k;
    recipe.optim.warmup_steps = 0;
    train(cpu.ctx, recipe, tiny.data);
    const double kl = log_of(recipe.out)[0]["kl"].get<double>();
    EXPECT_GT(kl, before);
    before = kl;
  }
}

TEST(Distill, AFileOfAnotherTeacherDataOrTemperatureIsRefused) {
  Distilling tiny;
  tiny.recipe.train.steps = 1;
  tiny.recipe.optim.warmup_steps = 0;
  tiny.recipe.distill.top_k = 4;
  tiny.recipe.distill.cache = (tiny.folder / "teacher.safetensors").string();
  CpuContext cpu;
  train(cpu.ctx, tiny.recipe, tiny.data);
  const auto message = [&](const recipe::Recipe& recipe, const TrainData& data) -> std::string {
    try {
      train(cpu.ctx, recipe, data);
    } catch (const BadRecipe& error) {
      return error.what();
    }
    return "taken";
  };
  recipe::Recipe other = tiny.to("other");
  other.distill.temperature = 2;
  EXPECT_NE(message(other, tiny.data).find("another distill.temperature (1, now 2)"), std::string::npos);
  other = tiny.to("other");
  other.data.seq_len = 48;
  EXPECT_NE(message(other, tiny.data).find("another packing"), std::string::npos);
  TrainData data = tiny.data;
  data.train[0].ids[1] ^= 1;
  EXPECT_NE(message(tiny.to("other"), data).find("another data set or tokenization"), std::string::npos);
  testing::write_random_model(tiny.folder / "second", {.seed = 9});
  other = tiny.to("other");
  other.model.path = (tiny.folder / "second").string();
  EXPECT_NE(message(other, tiny.data).find("another teacher"), std::string::npos);
  EXPECT_EQ(message(tiny.to("again"), tiny.data), "taken");
}

TEST(Distill, BrokenFilesAreRefused) {
  Distilling tiny;
  tiny.recipe.train.steps = 1;
  tiny.recipe.optim.warmup_steps = 0;
  tiny.recipe.distill.top_k = 4;
  CpuContext cpu;
  train(cpu.ctx, tiny.recipe, tiny.data);
  const std::string whole = slurp(tiny.folder / "run" / "teacher.safetensors");
  const auto parse = [](const std::string& text) {
    const TeacherCache cache = TeacherCache::parse(std::as_bytes(std::span(text)), "file");
    for (std::int64_t i = 0; i < cache.sequences(); ++i) cache.rows({&i, 1});
  };
  EXPECT_NO_THROW(parse(whole));
  EXPECT_THROW(parse(whole.substr(0, whole.size() - 5)), BadFile);
  std::string ids = whole;
  for (std::size_t i = 0; i < 36; ++i) ids[ids.size() - 1 - i] = '\x7f';  // the last record
  EXPECT_THROW(parse(ids), BadFile);
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string text = whole;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  EXPECT_THROW(parse(replaced("temper-teacher", "temper-student")), BadFile);
  EXPECT_THROW(parse(replaced("\"top_k\":\"4\"", "\"top_k\":\"5\"")), BadFile);
  EXPECT_THROW(parse(replaced("\"vocab\":\"96\"", "\"vocab\":\"40\"")), BadFile);
}

TEST(Distill, ATeacherNeedsTheSameVocabulary) {
  const testing::TemporaryFolder folder;
  CpuContext cpu;
  Distilling tiny("none");
  testing::write_random_model(tiny.folder / "model", {.vocab = 80});
  testing::write_tiny_tokenizer(tiny.folder / "model");
  testing::write_random_model(folder / "larger", {.vocab = 96});
  testing::write_tiny_tokenizer(folder / "larger");
  tiny.data.train = testing::counting_samples(10, 80, 1);
  tiny.recipe.distill.teacher = (folder / "larger").string();
  EXPECT_THROW(train(cpu.ctx, tiny.recipe, tiny.data), BadRecipe);
  testing::write_random_model(folder / "deeper", {.vocab = 80, .hidden = 32, .layers = 3, .seed = 4});
  testing::write_tiny_tokenizer(folder / "deeper");
  tiny.recipe.distill.teacher = (folder / "deeper").string();
  tiny.recipe.train.steps = 10;
  train(cpu.ctx, tiny.recipe, tiny.data);
  const auto log = log_of(tiny.folder / "run");
  EXPECT_LT(log.back()["kl"].get<double>(), log.front()["kl"].get<double>());
}

/// Pairs of counting rows: the rejected answer counts downwards.
std::vector<text::Sample> pairs(std::int64_t count, std::int64_t vocab) {
  std::vector<text::Sample> samples;
  for (const text::Sample& chosen : testing::counting_samples(count, vocab, 31)) {
    text::Sample rejected = chosen;
    for (std::size_t i = chosen.ids.size() / 2; i < chosen.ids.size(); ++i)
      rejected.ids[i] = static_cast<std::int32_t>((rejected.ids[i - 1] + vocab - 1) % vocab);
    rejected.ids.pop_back();  // of another length
    rejected.labelled.pop_back();
    samples.push_back(chosen);
    samples.push_back(rejected);
  }
  return samples;
}

struct Preferring : TinyRun {
  explicit Preferring(const std::string& scheme) : TinyRun({}, scheme) {
    recipe.train.objective = recipe::ObjectiveKind::Dpo;
    data.train = pairs(20, 96);
    data.held_out = pairs(5, 96);
    recipe.dpo.beta = 0.3;
  }
};

TEST(DpoRun, LearnsToPrefer) {
  for (const char* scheme : {"none", "q4_0"}) {
    Preferring tiny(scheme);
    tiny.recipe.train.steps = 16;
    CpuContext cpu;
    const TrainResult result = train(cpu.ctx, tiny.recipe, tiny.data);
    const auto log = log_of(tiny.folder / "run");
    if (tiny.recipe.quant.scheme == "none") {  // model and reference are the same at first
      EXPECT_NEAR(log[0]["loss"].get<double>(), std::log(2.0), 1e-5);
      EXPECT_NEAR(log[0]["margin"].get<double>(), 0, 1e-5);
    }
    EXPECT_LT(log.back()["loss"].get<double>(), 0.9 * log.front()["loss"].get<double>()) << scheme;
    EXPECT_GT(log.back()["accuracy"].get<double>(), 0.8);
    EXPECT_GT(log.back()["eval_margin"].get<double>(), 0);
    EXPECT_EQ(result.held_out->rows, 5);
  }
}

/// TRL's sigmoid loss, by torch: tools/oracles/dpo.py.
TEST(DpoLoss, EqualsTorchs) {
  const struct {
    double margin, smoothing, loss, slope;
  } golden[] = {
#include "dpo_golden.inc"
  };
  for (const auto& g : golden) {
    const PreferenceLoss found = preference_loss(g.margin, g.smoothing);
    EXPECT_NEAR(found.loss, g.loss, 1e-12 * (1 + std::abs(g.loss)));
    EXPECT_NEAR(found.slope, g.slope, 1e-12);
  }
}

/// The step's gradient is a combination of plain cross-entropy's, answer by answer, with coefficients from the formula in
/// double.
TEST(DpoRun, GradientsEqualTheFormulas) {
  Preferring tiny("none");
  tiny.recipe.dpo.label_smoothing = 0.1;
  tiny.recipe.dpo.rpo_alpha = 0.5;
  CpuContext cpu;
  const auto reader = model::CheckpointReader::open(tiny.recipe.model.path);
  model::BaseWeights base(reader, DType::F32);
  model::Adapters adapters(reader.table(), {.r = 4, .alpha = 8, .target_modules = {}}, 3);
  Rng rng(17);
  for (const auto& entry : adapters.entries())
    for (float& x : entry.b.span<float>()) x = 0.05f * (2 * rng.uniform() - 1);
  adapters.prepare(cpu.ctx, base);
  model::Transformer transformer(reader.arch(), base, &adapters), reference(reader.arch(), base);
  text::PackOptions options;
  options.seq_len = 64;
  options.pairs = true;
  options.shuffle = false;
  tiny.data.train.resize(12);
  text::Packer packer(tiny.data.train, options);
  const std::string fingerprint = "rows";
  const auto gradients = [&] {
    const auto span = adapters.gradients().span<float>();
    return std::vector<float>(span.begin(), span.end());
  };

  // By the formula.
  std::vector<double> expected(gradients().size());
  const auto nll_of = [&](model::Transformer& of, const text::Sample& sample) {
    return eval::score_samples(cpu.ctx, of, {&sample, 1})[0];
  };
  double loss = 0, tokens = 0;
  const double count = static_cast<double>(tiny.data.train.size() / 2), beta = 0.3, smoothing = 0.1, alpha = 0.5;
  for (std::size_t i = 0; i < tiny.data.train.size(); i += 2)
    tokens += static_cast<double>(nll_of(reference, tiny.data.train[i]).tokens);
  for (std::size_t i = 0; i < tiny.data.train.size(); i += 2) {
    const text::Sample &chosen = tiny.data.train[i], &rejected = tiny.data.train[i + 1];
    const double nll = nll_of(transformer, chosen).nll;
    const double h =
        beta * (nll_of(reference, chosen).nll - nll - nll_of(reference, rejected).nll + nll_of(transformer, rejected).nll);
    loss += (-(1 - smoothing) * std::log(1 / (1 + std::exp(-h))) - smoothing * std::log(1 / (1 + std::exp(h)))) / count +
            alpha * nll / tokens;
    const double slope = -(1 - smoothing) / (1 + std::exp(h)) + smoothing / (1 + std::exp(-h));
    for (const bool is_chosen : {true, false}) {
      const eval::ModelBatch batch(text::batch_of({is_chosen ? &chosen : &rejected, 1}));
      ops::zero(cpu.ctx, adapters.gradients());
      transformer.forward_backward(cpu.ctx, batch.view(), 1.0f);
      const double factor = (is_chosen ? -1 : 1) * slope * beta / count + (is_chosen ? alpha / tokens : 0);
      const auto part = gradients();
      for (std::size_t j = 0; j < part.size(); ++j) expected[j] += factor * static_cast<double>(part[j]);
    }
  }
  double norm = 0;
  for (const double g : expected) norm += g * g;
  norm = std::sqrt(norm);

  for (const std::int64_t micro_batches : {1, 3}) {
    packer.restore({});
    const text::StepBatches batches = packer.next_step(packer.size(), micro_batches);
    const auto objective = make_objective(cpu.ctx, {tiny.recipe, reader, base, packer, fingerprint});
    ops::zero(cpu.ctx, adapters.gradients());
    const StepLoss step = objective->step(cpu.ctx, transformer, batches, nullptr);
    EXPECT_NEAR(step.loss, loss, 1e-5);
    const auto found = gradients();
    double off = 0;
    for (std::size_t j = 0; j < found.size(); ++j) off += std::pow(static_cast<double>(found[j]) - expected[j], 2);
    EXPECT_GT(norm, 1e-2);
    // Sums of a few hundred tokens in another order, in f32; margins are sums of tens of NLLs, good to 1e-5.
    EXPECT_LT(std::sqrt(off), 1e-4 * norm) << micro_batches;
  }
}

struct Case {
  const char* name;
  recipe::ObjectiveKind objective;
  const char* scheme;
  std::int64_t top_k;
};

class ObjectiveResume : public ::testing::TestWithParam<Case> {};

TEST_P(ObjectiveResume, IsTheSameToTheBit) {
  const Case& c = GetParam();
  const auto made = [&]() -> std::unique_ptr<TinyRun> {
    if (c.objective == recipe::ObjectiveKind::Dpo) return std::make_unique<Preferring>(c.scheme);
    return std::make_unique<Distilling>(c.scheme);
  }();
  TinyRun& tiny = *made;
  tiny.recipe.distill.top_k = c.top_k;
  tiny.recipe.train.steps = 3;
  tiny.recipe.train.micro_batch = 2;
  tiny.recipe.data.seq_len = 48;
  CpuContext cpu;
  train(cpu.ctx, tiny.recipe, tiny.data);
  for (const std::int64_t stop : {1, 2}) {
    const std::string name = "stopped-" + std::to_string(stop);
    stop_and_resume(cpu.ctx, tiny, name, stop);
    EXPECT_EQ(tiny.adapter(name), tiny.adapter("run")) << stop;
  }
  recipe::Recipe recomputed = tiny.to("recomputed");
  recomputed.train.recompute = recipe::Recompute::None;
  train(cpu.ctx, recomputed, tiny.data);
  EXPECT_EQ(tiny.adapter("recomputed"), tiny.adapter("run"));
}

INSTANTIATE_TEST_SUITE_P(Objectives, ObjectiveResume,
                         ::testing::Values(Case{"distill", recipe::ObjectiveKind::Distill, "q4_0", 0},
                                           Case{"distill_top", recipe::ObjectiveKind::Distill, "q4_0", 8},
                                           Case{"dpo", recipe::ObjectiveKind::Dpo, "none", 0},
                                           Case{"dpo_qat", recipe::ObjectiveKind::Dpo, "q4_0", 0}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace temper::train
