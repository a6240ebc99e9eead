// Keys of rank_pattern, as peft 0.21's get_pattern_key matches them: re.match(rf"(.*\\.)?({key})$", module).
#include "model/module_pattern.h"

#include <gtest/gtest.h>

#include <string>
#include <tuple>
#include <vector>

#include "base/error.h"

namespace temper::model {
namespace {

TEST(ModulePattern, MatchesAsPeftDoes) {
  const std::string q0 = "model.layers.0.self_attn.q_proj", q10 = "model.layers.10.self_attn.q_proj";
  for (const auto& [key, module, expected] : std::vector<std::tuple<std::string, std::string, bool>>{
           {"q_proj", q0, true},
           {"proj", q0, false},  // after a dot only
           {"self_attn.q_proj", q0, true},
           {"layers.0.self_attn.q_proj", q0, true},
           {q0, q0, true},
           {q0, q10, false},
           {"model.layers.1.*", q10, true},  // as in a regular expression: 1, then anything
           {"model\\.layers\\.1\\..*", q10, false},
           {"layers..*.q_proj", q0, true},
           {"^layers.*", q0, false},
           {"^model.*q_proj$", q0, true},
           {".*", q0, true},
           {"q.proj", q0, true},
           {"q\\.proj", q0, false},
           {".*attn", q0, false},
           {"k_proj", q0, false}})
    EXPECT_EQ(matches_module(key, module), expected) << key << " on " << module;
}

TEST(ModulePattern, WhatIsNotReadIsRefused) {
  for (const char* key : {"", "$", "(q|k)_proj", "q_proj+", "[qk]_proj", "q_proj\\", "a*b"})
    EXPECT_THROW(matches_module(key, "model.layers.0.self_attn.q_proj"), Unsupported) << key;
}

TEST(ModulePattern, KeysThatDisagreeAreNamed) {
  const ModulePattern<std::int64_t> pattern = {{"q_proj", 8}, {"layers.0.*", 4}, {"self_attn.q_proj", 8}};
  EXPECT_EQ(pattern_value<std::int64_t>(pattern, "model.layers.1.self_attn.q_proj", 16, "rank_pattern"), 8);
  EXPECT_EQ(pattern_value<std::int64_t>(pattern, "model.layers.1.self_attn.k_proj", 16, "rank_pattern"), 16);
  EXPECT_THROW(pattern_value<std::int64_t>(pattern, "model.layers.0.self_attn.q_proj", 16, "rank_pattern"), BadRecipe);
}

/// A key from a file cannot cost more than its length.
TEST(ModulePattern, ManyRunsTakeNoTime) {
  std::string key;
  for (int i = 0; i < 200; ++i) key += ".*a";
  EXPECT_FALSE(matches_module(key + "b", std::string(300, 'a')));
}

}  // namespace
}  // namespace temper::model
