#include "export/gguf_lora.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "temporary_folder.h"

using namespace temper;
using temper::testing::TemporaryFolder;

namespace {

model::ArchSpec small_arch() {
  model::ArchSpec arch;
  arch.hidden_size = 24;
  arch.intermediate_size = 40;
  arch.num_layers = 2;
  arch.num_heads = 3;
  arch.num_kv_heads = 1;
  arch.head_dim = 8;
  arch.vocab_size = 11;
  arch.tied = true;
  return arch;
}

model::Adapters some_adapters(const model::TensorTable& table, const model::LoraConfig& config) {
  model::Adapters adapters(table, config, 7);
  float value = 0.0f;
  for (float& p : adapters.parameters().span<float>()) p += value += 0.25f;
  return adapters;
}

}  // namespace

TEST(GgufLora, ComesBackAsItWasWritten) {
  const model::TensorTable table(small_arch());
  for (const bool rank_stabilised : {false, true}) {
    const TemporaryFolder folder;
    const model::LoraConfig config{
        .r = 3, .alpha = 5, .rslora = rank_stabilised, .target_modules = {"q_proj", "v_proj", "down_proj"}};
    const model::Adapters adapters = some_adapters(table, config);
    exporter::write_gguf_lora(adapters, table, "some", folder / "a.gguf");
    const files::GgufFile file(folder / "a.gguf");
    const model::Adapters found = exporter::read_gguf_lora(table, file);
    ASSERT_EQ(found.entries().size(), adapters.entries().size());
    for (const model::Adapters::Entry& entry : adapters.entries()) {
      const model::Adapters::Entry* other = found.find(entry.tensor);
      ASSERT_NE(other, nullptr);
      EXPECT_TRUE(std::ranges::equal(entry.a.span<float>(), other->a.span<float>()));
      EXPECT_TRUE(std::ranges::equal(entry.b.span<float>(), other->b.span<float>()));
    }
    EXPECT_FLOAT_EQ(found.entries()[0].scale, adapters.entries()[0].scale);
  }
}

/// llama.cpp scales each pair by alpha over its own rank, with one alpha for all.
TEST(GgufLora, RanksOfTheirOwnComeBack) {
  const model::TensorTable table(small_arch());
  const TemporaryFolder folder;
  model::LoraConfig config{.r = 3, .alpha = 5, .target_modules = {"q_proj", "down_proj"}};
  config.rank_pattern = {{"down_proj", 2}};
  config.layers_to_transform = {1};
  const model::Adapters adapters = some_adapters(table, config);
  exporter::write_gguf_lora(adapters, table, "some", folder / "a.gguf");
  const model::Adapters found = exporter::read_gguf_lora(table, files::GgufFile(folder / "a.gguf"));
  ASSERT_EQ(found.entries().size(), 2u);
  for (std::size_t e = 0; e < 2; ++e) {
    EXPECT_EQ(found.entries()[e].layer, 1);
    EXPECT_TRUE(std::ranges::equal(found.entries()[e].b.span<float>(), adapters.entries()[e].b.span<float>()));
    EXPECT_FLOAT_EQ(found.entries()[e].scale, adapters.entries()[e].scale);
  }
  config.alpha_pattern = {{"down_proj", 2}};
  EXPECT_THROW(exporter::write_gguf_lora(some_adapters(table, config), table, "some", folder / "b.gguf"), Unsupported);
}

TEST(GgufLora, RowsOfQueriesAreInterleavedAsTheBaseIs) {
  const model::TensorTable table(small_arch());
  const TemporaryFolder folder;
  const model::Adapters adapters = some_adapters(table, {.r = 2, .target_modules = {"q_proj"}});
  exporter::write_gguf_lora(adapters, table, "some", folder / "a.gguf");
  const files::GgufFile file(folder / "a.gguf");
  const auto* b = reinterpret_cast<const float*>(file.at("blk.0.attn_q.weight.lora_b").data.data());
  const auto rows = adapters.entries()[0].b.span<float>();
  // Heads of 8: rows 0 1 2 3 | 4 5 6 7 are stored as 0 4 1 5 2 6 3 7.
  for (const auto& [hf, stored] : {std::pair{0, 0}, {4, 1}, {1, 2}, {7, 7}, {8 + 5, 8 + 3}})
    EXPECT_EQ(b[2 * stored], rows[static_cast<std::size_t>(2 * hf)]) << hf;
}

TEST(GgufLora, AdaptersForAnotherBaseAreRefused) {
  const model::TensorTable table(small_arch());
  const TemporaryFolder folder;
  const model::Adapters adapters = some_adapters(table, {.r = 2, .target_modules = {}});
  exporter::write_gguf_lora(adapters, table, "some", folder / "a.gguf");
  const files::GgufFile file(folder / "a.gguf");
  model::ArchSpec wider = small_arch(), shorter = small_arch(), longer = small_arch();
  wider.intermediate_size = 48;
  shorter.num_layers = 1;
  longer.num_layers = 3;
  EXPECT_THROW(exporter::read_gguf_lora(model::TensorTable(wider), file), BadFile);
  EXPECT_THROW(exporter::read_gguf_lora(model::TensorTable(shorter), file), BadFile);
  // The file does not say how many layers its base has: this is an adapter for the first two.
  EXPECT_EQ(exporter::read_gguf_lora(model::TensorTable(longer), file).entries().size(), adapters.entries().size());
}
