// Ways of quantizing against each other on a tiny model: who is chosen, what is left out, and whose codes are given.
#include "ptq/best.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "ops/cpu/cpu_backend.h"
#include "random_model.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::ptq {
namespace {

class BestWay : public ::testing::Test {
 protected:
  Arena arena_{std::size_t{1} << 30};
  ExecContext ctx_{&ops::cpu_backend(), &arena_, DType::F32};
  testing::TemporaryFolder folder_;
  recipe::Recipe recipe_;
  std::vector<text::Sample> samples_ = testing::counting_samples(48, 80, 3);
  Calibration fit_;
  std::unique_ptr<eval::LoadedModel> reference_;

  void SetUp() override {
    recipe_.model.path = (folder_ / "model").string();
    testing::write_random_model(recipe_.model.path, {.vocab = 80, .hidden = 128, .intermediate = 256});
    testing::write_tiny_tokenizer(recipe_.model.path);
    reference_ = eval::LoadedModel::open(ctx_, recipe_.model.path);
    fit_ = batched(std::span(samples_).first(32), "samples");
  }
  std::span<const text::Sample> judge() const { return std::span(samples_).last(16); }
  Best best(const std::string& scheme, std::initializer_list<const char*> names) {
    std::vector<Way> ways;
    for (const char* name : names) ways.push_back(way_of(name));
    return Chooser(ctx_, recipe_, *reference_, &fit_, judge()).best(scheme, ways);
  }
  double kld(eval::LoadedModel& model) {
    return eval::compare(ctx_, model.transformer(), reference_->transformer(), judge()).kld.value;
  }
};

/// The way chosen may not be the last that was tried: its codes are made again, and are those that were judged.
TEST_F(BestWay, TheModelIsTheOneThatWasJudged) {
  for (const auto names : {std::initializer_list<const char*>{"rtn", "gptq", "mse", "importance"},
                           {"rtn", "mse", "gptq"},
                           {"awq+gptq", "awq", "rtn"}}) {
    const Best chosen = best("int3-sym-g32", names);
    ASSERT_EQ(chosen.trials.size(), names.size());
    const auto least = std::ranges::min_element(chosen.trials, {}, [](const Trial& t) { return t.kld.value; });
    EXPECT_EQ(chosen.way.name, least->way);
    EXPECT_TRUE(chosen.way.name.ends_with("gptq"));
    EXPECT_EQ(kld(*chosen.model), least->kld.value);
  }
}

TEST_F(BestWay, WhatRefusesASchemeIsLeftOut) {
  const Best chosen = best("nf4-dq", {"mse", "importance", "rtn", "gptq"});
  EXPECT_EQ(chosen.way.name, "gptq");
  EXPECT_NE(chosen.trials[0].skipped.find("nf4-dq"), std::string::npos);
  EXPECT_NE(chosen.trials[1].skipped.find("nf4-dq"), std::string::npos);
  EXPECT_NE(to_text(chosen).find("left out"), std::string::npos);
  EXPECT_TRUE(to_json(chosen).at(0).contains("skipped"));
  EXPECT_THROW(best("nf4-dq", {"mse", "importance"}), NoWay);
}

TEST_F(BestWay, OneAloneIsNotMeasured) {
  const Best chosen = best("q4_0", {"mse"});
  EXPECT_EQ(chosen.way.name, "mse");
  EXPECT_EQ(chosen.trials.at(0).kld.value, 0.0);
  ASSERT_NE(chosen.model, nullptr);
}

}  // namespace
}  // namespace temper::ptq
