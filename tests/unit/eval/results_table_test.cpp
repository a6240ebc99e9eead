#include "eval/results_table.h"

#include <gtest/gtest.h>

namespace temper::eval {
namespace {

std::vector<ResultRow> example() {
  ResultRow base{"base 16-bit", 16.0, 269'060'000, {1.23456, 1.2, 1.3}, {}, {}, {}};
  ResultRow qat{"QAT q4_0 für 日本",
                4.98,
                2'500'000'000,
                {0.7, 0.65, 0.75},
                Estimate{0.0123, 0.01, 0.02},
                Estimate{0.956, 0.9, 0.99},
                Estimate{0.76, 0.71, 0.8}};
  return {base, qat};
}

TEST(ResultsTable, AlignsByCharacter) {
  EXPECT_EQ(results_text(example()),
            "model             bits/weight       size      answer NLL [95 % CI]   KLD vs tuned   top-1 agree   recovered "
            "[95 % CI]\n"
            "base 16-bit             16.00   269.1 MB   1.2346 [1.2000, 1.3000]\n"
            "QAT q4_0 für 日本          4.98    2.50 GB   0.7000 [0.6500, 0.7500]         0.0123        95.6 %         76 % "
            "[71, 80]\n");
}

TEST(ResultsTable, JsonKeepsFiguresAndLeavesAbsentOnesOut) {
  const nlohmann::ordered_json json = results_json(example());
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[0]["nll"], 1.23456);
  EXPECT_EQ(json[0]["nll_ci"], (nlohmann::ordered_json{1.2, 1.3}));
  EXPECT_EQ(json[0]["bytes"], 269'060'000);
  EXPECT_FALSE(json[0].contains("kld"));
  EXPECT_EQ(json[1]["recovered"], 0.76);
  EXPECT_EQ(json[1]["recovered_ci"], (nlohmann::ordered_json{0.71, 0.8}));
}

}  // namespace
}  // namespace temper::eval
