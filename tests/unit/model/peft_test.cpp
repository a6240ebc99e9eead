// Adapters in peft's layout: files that peft wrote (tests/data/peft, tools/oracles/make_peft_golden.py) and our own round
// trip.
#include "model/peft.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "adapted_arch.h"
#include "base/atomic_file.h"
#include "files/safetensors.h"
#include "model/checkpoint_reader.h"
#include "temporary_folder.h"

namespace temper::model {
namespace {

const std::filesystem::path kGolden = std::filesystem::path(TEMPER_TEST_DATA) / "peft";

std::vector<float> floats(const files::SafetensorsFile& file, const std::string& name) {
  const files::SafetensorsTensor& tensor = file.at(name);
  std::vector<float> values(tensor.data.size() / sizeof(float));
  std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

class PeftFiles : public ::testing::Test {
 protected:
  ArchSpec arch_ = testing::adapted_arch();
  TensorTable table_{arch_};
  temper::testing::TemporaryFolder folder_;

  nlohmann::json golden_config() { return nlohmann::json::parse(read_file(kGolden / "adapter_config.json")); }
  /// The golden adapter with another config.
  void write_with_config(const nlohmann::json& config) {
    std::filesystem::copy_file(kGolden / "adapter_model.safetensors", folder_ / "adapter_model.safetensors",
                               std::filesystem::copy_options::overwrite_existing);
    write_file(folder_ / "adapter_config.json", config.dump());
  }
  std::string error_of(const nlohmann::json& config) {
    write_with_config(config);
    try {
      load_peft(table_, folder_.path());
    } catch (const Unsupported& error) {
      return std::string("unsupported: ") + error.what();
    } catch (const BadFile& error) {
      return std::string("bad file: ") + error.what();
    }
    return "";
  }
};

TEST_F(PeftFiles, ReadsWhatPeftWroteAndMergesToItsWeights) {
  const Adapters adapters = load_peft(table_, kGolden);
  EXPECT_EQ(adapters.config().r, 4);
  EXPECT_EQ(adapters.config().alpha, 8.0);
  EXPECT_EQ(adapters.entries().size(), 14u);
  const files::SafetensorsFile golden(kGolden / "merged.safetensors");
  for (const auto& [layer, linear] : {std::pair{0, Linear::Q}, std::pair{1, Linear::Down}}) {
    const Adapters::Entry* entry = adapters.find(layer, linear);
    ASSERT_NE(entry, nullptr);
    const std::string& name = table_[entry->tensor].hf_name;
    const std::vector<float> base = floats(golden, "base." + name), merged = floats(golden, "merged." + name);
    const auto a = entry->a.span<float>(), b = entry->b.span<float>();
    const std::size_t cols = static_cast<std::size_t>(entry->a.cols()), rank = 4;
    for (std::size_t i = 0; i < merged.size(); ++i) {
      double sum = 0.0, size = std::abs(double{base[i]});
      for (std::size_t r = 0; r < rank; ++r) {
        const double term = 2.0 * double{b[i / cols * rank + r]} * double{a[r * cols + i % cols]};
        sum += term;
        size += std::abs(term);
      }
      // peft's f32 sum of 5 terms is within 5 roundings of the exact one.
      ASSERT_NEAR(merged[i], double{base[i]} + sum, 5 * 0x1p-24 * size) << name << " element " << i;
    }
  }
}

// `scaling` of peft 0.21's layers with use_rslora and without, for the same rank and alpha.
TEST(LoraScale, EqualsPeft) {
  EXPECT_EQ((LoraConfig{.r = 4, .alpha = 8, .rslora = true, .target_modules = {}}.scale_of("q_proj")), 4.0f);
  EXPECT_EQ((LoraConfig{.r = 3, .alpha = 5, .rslora = true, .target_modules = {}}.scale_of("q_proj")), 2.886751345948129f);
  EXPECT_EQ((LoraConfig{.r = 4, .alpha = 8, .rslora = false, .target_modules = {}}.scale_of("q_proj")), 2.0f);
}

TEST_F(PeftFiles, RoundTripKeepsEveryBitAndTheConfig) {
  LoraConfig config;
  config.r = 3;
  config.alpha = 12.5;
  config.rslora = true;
  config.target_modules = {"v_proj", "down_proj"};
  Adapters adapters(table_, config, 7);
  float next = 0.0f;
  for (const Adapters::Entry& entry : adapters.entries())
    for (float& x : entry.b.span<float>()) x = 0.001f * ++next;
  save_peft(adapters, table_, {"base/model"}, folder_.path());
  const Adapters again = load_peft(table_, folder_.path());
  EXPECT_EQ(again.config().r, 3);
  EXPECT_EQ(again.config().alpha, 12.5);
  EXPECT_TRUE(again.config().rslora);
  EXPECT_EQ(again.entries()[0].scale, adapters.entries()[0].scale);
  ASSERT_EQ(again.entries().size(), 4u);
  const auto before = adapters.parameters(), after = again.parameters();
  ASSERT_EQ(before.bytes(), after.bytes());
  EXPECT_EQ(std::memcmp(before.data, after.data, before.bytes()), 0);
  const nlohmann::json written = nlohmann::json::parse(read_file(folder_ / "adapter_config.json"));
  EXPECT_EQ(written["target_modules"], (nlohmann::json{"down_proj", "v_proj"}));
  EXPECT_EQ(written["base_model_name_or_path"], "base/model");
}

TEST_F(PeftFiles, WritesTheNamesAndValuesThatPeftWrites) {
  save_peft(load_peft(table_, kGolden), table_, {"../hf/qwen3_tied"}, folder_.path());
  const files::SafetensorsFile ours(folder_ / "adapter_model.safetensors"), theirs(kGolden / "adapter_model.safetensors");
  ASSERT_EQ(ours.tensors().size(), theirs.tensors().size());
  for (const files::SafetensorsTensor& tensor : theirs.tensors()) {
    EXPECT_EQ(ours.at(tensor.name).shape, tensor.shape);
    EXPECT_EQ(floats(ours, tensor.name), floats(theirs, tensor.name)) << tensor.name;
  }
  nlohmann::json config = nlohmann::json::parse(read_file(folder_ / "adapter_config.json"));
  nlohmann::json golden = golden_config();
  std::sort(golden["target_modules"].begin(), golden["target_modules"].end());
  for (const auto& [key, value] : config.items()) {
    ASSERT_TRUE(golden.contains(key)) << key;
    EXPECT_EQ(value, golden[key]) << key;
  }
}

TEST_F(PeftFiles, RefusesWhatItDoesNotApply) {
  for (const auto& [key, value] : std::vector<std::pair<std::string, nlohmann::json>>{{"bias", "vera_only"},
                                                                                      {"modules_to_save", {"norm"}},
                                                                                      {"rank_pattern", {{"(q|k)_proj", 8}}},
                                                                                      {"peft_type", "IA3"},
                                                                                      {"target_modules", ".*proj"}}) {
    nlohmann::json config = golden_config();
    config[key] = value;
    const std::string error = error_of(config);
    EXPECT_TRUE(error.starts_with("unsupported: ")) << key << ": " << error;
    EXPECT_NE(error.find(key == "rank_pattern" ? "(q|k)_proj" : key), std::string::npos) << error;
  }
}

/// Ranks, alphas and layers of their own: as entries, in the file, and back.
TEST_F(PeftFiles, PatternsAndLayersComeBack) {
  LoraConfig config{.r = 4, .alpha = 8, .target_modules = {"q_proj", "down_proj"}};
  config.rank_pattern = {{"down_proj", 2}, {"model.layers.0.self_attn.q_proj", 3}};
  config.alpha_pattern = {{"down_proj", 5}, {"self_attn.*", 2.5}};
  const Adapters adapters(table_, config, 7);
  ASSERT_EQ(adapters.entries().size(), 4u);
  EXPECT_EQ(adapters.find(0, Linear::Q)->a.rows(), 3);
  EXPECT_EQ(adapters.find(0, Linear::Q)->scale, 2.5f / 3.0f);
  EXPECT_EQ(adapters.find(1, Linear::Q)->b.cols(), 4);
  EXPECT_EQ(adapters.find(1, Linear::Down)->scale, 2.5f);
  save_peft(adapters, table_, {"base"}, folder_.path());
  const nlohmann::json written = nlohmann::json::parse(read_file(folder_ / "adapter_config.json"));
  EXPECT_EQ(written["rank_pattern"], (nlohmann::json{{"down_proj", 2}, {"model.layers.0.self_attn.q_proj", 3}}));
  EXPECT_EQ(written["alpha_pattern"], (nlohmann::json{{"down_proj", 5}, {"self_attn.*", 2.5}}));
  const Adapters again = load_peft(table_, folder_.path());
  for (std::size_t e = 0; e < 4; ++e) {
    EXPECT_EQ(again.entries()[e].scale, adapters.entries()[e].scale);
    EXPECT_TRUE(std::ranges::equal(again.entries()[e].a.span<float>(), adapters.entries()[e].a.span<float>()));
  }
  config.layers_to_transform = {1};
  const Adapters one(table_, config, 7);
  EXPECT_EQ(one.entries().size(), 2u);
  EXPECT_EQ(one.find(0, Linear::Q), nullptr);
  save_peft(one, table_, {"base"}, folder_.path());
  EXPECT_EQ(load_peft(table_, folder_.path()).config().layers_to_transform, std::vector<std::int64_t>{1});
}

TEST_F(PeftFiles, PatternsThatCannotBeAreRefused) {
  LoraConfig config{.r = 4, .alpha = 8, .target_modules = {}};
  config.rank_pattern = {{"down_proj", 65}};
  EXPECT_THROW(Adapters(table_, config, 1), BadRecipe);
  config.rank_pattern = {};
  config.layers_to_transform = {2};
  EXPECT_THROW(Adapters(table_, config, 1), BadRecipe);
  nlohmann::json json = golden_config();
  json["rank_pattern"] = {{"q_proj", "8"}};
  EXPECT_TRUE(error_of(json).starts_with("bad file: ")) << error_of(json);
  json = golden_config();
  json["layers_to_transform"] = {0.5};
  EXPECT_TRUE(error_of(json).starts_with("bad file: ")) << error_of(json);
  json["layers_to_transform"] = 7;
  EXPECT_NE(error_of(json).find("no layer 7"), std::string::npos) << error_of(json);
}

/// What the base does not have, or holds as one.
TEST_F(PeftFiles, RefusesWhatCannotBeTrainedBeside) {
  nlohmann::json config = golden_config();
  config["bias"] = "all";
  EXPECT_NE(error_of(config).find("no biases"), std::string::npos) << error_of(config);
  config = golden_config();
  config["modules_to_save"] = {"lm_head"};
  EXPECT_NE(error_of(config).find("one table"), std::string::npos) << error_of(config);
  config["modules_to_save"] = {"lm_head", "model.embed_tokens"};  // named, but not in the file
  EXPECT_NE(error_of(config).find("embed_tokens"), std::string::npos) << error_of(config);
}

/// Biases and a tied table as peft saved them: read, and written again under the same names, to the bit.
TEST(PeftBeside, ComesBackAsPeftWroteIt) {
  const auto reader = CheckpointReader::open(std::filesystem::path(TEMPER_TEST_DATA) / "hf" / "family_qwen2");
  const temper::testing::TemporaryFolder folder;
  EXPECT_THROW(load_peft(reader.table(), kGolden / "beside"), Unsupported);  // no place for what is not adapters
  std::vector<Tensor> beside;
  const Adapters adapters = load_peft(reader.table(), kGolden / "beside", &beside);
  EXPECT_EQ(adapters.config().modules_to_save, (std::vector<std::string>{"embed_tokens", "lm_head"}));
  save_peft(adapters, reader.table(), {"base"}, folder.path(), {beside.begin(), beside.end()});
  const files::SafetensorsFile ours(folder / "adapter_model.safetensors"),
      theirs(kGolden / "beside" / "adapter_model.safetensors");
  ASSERT_EQ(ours.tensors().size(), theirs.tensors().size());
  for (const files::SafetensorsTensor& tensor : theirs.tensors())
    EXPECT_EQ(floats(ours, tensor.name), floats(theirs, tensor.name)) << tensor.name;
  std::vector<Tensor> again;
  load_peft(reader.table(), folder.path(), &again);
  ASSERT_EQ(again.size(), beside.size());
  for (std::size_t i = 0; i < again.size(); ++i) {
    ASSERT_EQ(static_cast<bool>(again[i]), static_cast<bool>(beside[i]));
    if (!again[i]) continue;
    EXPECT_TRUE(std::ranges::equal(again[i].span<float>(), beside[i].span<float>()));
  }
}

TEST_F(PeftFiles, RefusesAnAdapterForAnotherBase) {
  nlohmann::json config = golden_config();
  config["r"] = 8;
  EXPECT_NE(error_of(config).find("expected shape [8, 64], found [4, 64]"), std::string::npos) << error_of(config);
  config = golden_config();
  config["target_modules"] = {"q_proj"};
  EXPECT_NE(error_of(config).find("unknown tensor"), std::string::npos) << error_of(config);
  config["target_modules"] = {"c_attn"};
  EXPECT_NE(error_of(config).find("c_attn"), std::string::npos) << error_of(config);
  arch_.num_layers = 3;
  table_ = TensorTable(arch_);
  EXPECT_NE(error_of(golden_config()).find("layers.2"), std::string::npos) << error_of(golden_config());
}

}  // namespace
}  // namespace temper::model
