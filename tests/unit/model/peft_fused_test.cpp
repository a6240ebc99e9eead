// Adapters of Phi-3's fused matrices in peft's layout.
#include "model/peft_fused.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "adapted_arch.h"
#include "base/atomic_file.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "model/peft.h"
#include "temporary_folder.h"

namespace temper::model {
namespace {

constexpr std::int64_t kHidden = 64, kQ = 96, kKv = 48, kRows = kQ + 2 * kKv;
constexpr const char* kQkv = "model.layers.0.self_attn.qkv_proj";

class PeftFused : public ::testing::Test {
 protected:
  TensorTable table_{testing::adapted_arch("phi3")};
  temper::testing::TemporaryFolder folder_;

  /// Adapters with something in B, too.
  Adapters filled(LoraConfig config) {
    Adapters adapters(table_, std::move(config), 1);
    float next = 0;
    for (float& value : adapters.parameters().span<float>()) value = std::sin(next += 0.37f);
    return adapters;
  }

  Adapters reopened(const Adapters& adapters) {
    save_peft(adapters, table_, {"base"}, folder_.path());
    return load_peft(table_, folder_.path());
  }

  files::Json config() { return files::read_json(folder_.path() / "adapter_config.json"); }
};

/// b [n, r] · a [r, m] in double.
std::vector<double> product(const TensorView& b, const TensorView& a) {
  std::vector<double> out(static_cast<std::size_t>(b.rows() * a.cols()));
  for (std::int64_t i = 0; i < b.rows(); ++i)
    for (std::int64_t k = 0; k < a.rows(); ++k)
      for (std::int64_t j = 0; j < a.cols(); ++j)
        out[static_cast<std::size_t>(i * a.cols() + j)] += static_cast<double>(b.as<const float>()[i * b.cols() + k]) *
                                                           static_cast<double>(a.as<const float>()[k * a.cols() + j]);
  return out;
}

TEST_F(PeftFused, EveryPartComesBackBitForBit) {
  const std::vector<LoraConfig> configs = {
      {.r = 2, .alpha = 3, .target_modules = {}},
      {.r = 3, .alpha = 2, .rslora = true, .target_modules = {"v_proj", "q_proj", "o_proj", "up_proj"}},
      {.r = 2, .alpha = 3, .target_modules = {}, .dora = true}};
  for (const LoraConfig& config : configs) {
    const Adapters adapters = filled(config), found = reopened(adapters);
    ASSERT_EQ(found.entries().size(), adapters.entries().size());
    EXPECT_TRUE(std::ranges::equal(found.parameters().span<const float>(), adapters.parameters().span<const float>()));
    for (std::size_t e = 0; e < found.entries().size(); ++e) {
      EXPECT_EQ(found.entries()[e].tensor, adapters.entries()[e].tensor);
      EXPECT_EQ(found.entries()[e].scale, adapters.entries()[e].scale);
    }
  }
}

TEST_F(PeftFused, TheStoredProductIsThatOfEachPartInItsRows) {
  const Adapters adapters = filled({.r = 2, .alpha = 3, .target_modules = {"q_proj", "v_proj"}});
  const PeftModule module = peft_modules(table_, adapters).front();
  EXPECT_EQ(module.name, kQkv);
  const PeftTensors stored = join_parts(module);
  ASSERT_EQ(stored.a->shape, (Shape{4, kHidden}));
  ASSERT_EQ(stored.b->shape, (Shape{kRows, 4}));
  std::vector<double> expected = product(adapters.find(0, Linear::Q)->b, adapters.find(0, Linear::Q)->a);
  expected.resize(expected.size() + kKv * kHidden);  // k has no adapter
  const std::vector<double> v = product(adapters.find(0, Linear::V)->b, adapters.find(0, Linear::V)->a);
  expected.insert(expected.end(), v.begin(), v.end());
  EXPECT_EQ(product(stored.b, stored.a), expected);
}

TEST_F(PeftFused, TheConfigSpeaksOfStoredMatrices) {
  save_peft(filled({.r = 2, .alpha = 3, .target_modules = {"q_proj", "v_proj", "o_proj", "up_proj"}}), table_, {"base"},
            folder_.path());
  EXPECT_EQ(config()["target_modules"], files::Json::parse(R"(["gate_up_proj", "o_proj", "qkv_proj"])"));
  EXPECT_EQ(config()["r"], 2);
  EXPECT_EQ(config()["rank_pattern"], files::Json::parse(R"({"qkv_proj": 4})"));
  EXPECT_EQ(config()["alpha_pattern"], files::Json::parse(R"({"qkv_proj": 6})"));
}

/// A folder as peft writes it: one dense adapter for all rows.
TEST_F(PeftFused, PeftsOwnGivesEachPartItsRows) {
  const Shape a_shape{3, kHidden}, b_shape{kRows, 3};
  Tensor a(DType::F32, a_shape), b(DType::F32, b_shape);
  float next = 0;
  for (Tensor* tensor : {&a, &b})
    for (float& value : tensor->span<float>()) value = std::cos(next += 0.41f);
  const std::string prefix = std::string("base_model.model.") + kQkv;
  files::SafetensorsWriter writer(
      folder_.path() / "adapter_model.safetensors",
      {{prefix + ".lora_A.weight", DType::F32, a_shape}, {prefix + ".lora_B.weight", DType::F32, b_shape}},
      {{"format", "pt"}});
  for (Tensor* tensor : {&a, &b}) writer.write(std::as_bytes(tensor->span<const float>()));
  writer.commit();
  write_file(folder_.path() / "adapter_config.json",
             R"({"peft_type": "LORA", "r": 8, "lora_alpha": 4, "rank_pattern": {"layers.0.self_attn.qkv_proj": 3},
                 "layers_to_transform": [0], "target_modules": ["qkv_proj"]})");
  const Adapters found = load_peft(table_, folder_.path());
  ASSERT_EQ(found.entries().size(), 3U);
  std::vector<double> all;
  for (const Adapters::Entry& entry : found.entries()) {
    EXPECT_FLOAT_EQ(entry.scale, 4.0f / 3.0f);
    const std::vector<double> part = product(entry.b, entry.a);
    all.insert(all.end(), part.begin(), part.end());
  }
  EXPECT_EQ(all, product(b, a));
}

TEST_F(PeftFused, WhatOneAdapterCannotBeIsRefused) {
  EXPECT_THROW(to_peft_config(table_, {.r = 2, .target_modules = {}, .rank_pattern = {{"k_proj", 4}}}), Unsupported);
  EXPECT_THROW(to_peft_config(table_, {.r = 2, .target_modules = {}, .alpha_pattern = {{"layers.1.mlp.up_proj", 4}}}),
               Unsupported);
  EXPECT_THROW(to_peft_config(table_, {.r = 2, .target_modules = {"q_proj"}, .dora = true}), Unsupported);
  EXPECT_NO_THROW(to_peft_config(table_, {.r = 2, .target_modules = {}, .rank_pattern = {{"o_proj", 4}}}));
}

TEST_F(PeftFused, AChangedFileIsRefused) {
  const Adapters adapters = filled({.r = 2, .alpha = 3, .target_modules = {"q_proj", "v_proj"}});
  const PeftModule module = peft_modules(table_, adapters).front();
  PeftTensors stored = join_parts(module);
  stored.b.span<float>()[3] = 1;  // a row of q in v's columns
  EXPECT_THROW(split_parts(module, stored, false, "a file"), BadFile);
}

}  // namespace
}  // namespace temper::model
