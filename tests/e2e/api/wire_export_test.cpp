// Quantized folders: what was trained or rounded is what the reopened folder holds and answers.
#include "export/wire_export.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>

#include "eval/loaded_model.h"
#include "eval/score.h"
#include "export/export.h"
#include "files/json.h"
#include "tiny_model.h"
#include "train_fixture.h"

namespace temper {
namespace {

namespace fs = std::filesystem;

/// All formats' blocks divide its rows.
testing::RandomModel shape(bool tied) { return {.vocab = 80, .hidden = 128, .intermediate = 256, .tied = tied}; }

struct Tiny : testing::TinyRun {
  testing::CpuContext cpu;

  explicit Tiny(bool tied = false, const std::string& scheme = "none") : Tiny(scheme, shape(tied)) {}
  Tiny(const std::string& scheme, const testing::RandomModel& model) : testing::TinyRun(model, scheme) {
    testing::write_tiny_tokenizer(recipe.model.path);
  }
  double nll(const fs::path& path, const std::string& scheme = "none") {
    const auto opened = eval::LoadedModel::open(cpu.ctx, path, scheme);
    double sum = 0;
    for (const eval::RowScore& score : eval::score_samples(cpu.ctx, opened->transformer(), data.held_out)) sum += score.nll;
    return sum;
  }
  recipe::Recipe exporting(const std::string& target, const std::string& name) const {
    recipe::Recipe other = to(name);
    other.exporting.to = target;
    return other;
  }
};

class WireExport : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(WireExport, AnswersAsTheModelQuantizedInMemory) {
  const auto& [scheme, target] = GetParam();
  for (const bool tied : {false, true}) {
    Tiny tiny(tied, scheme);
    const exporter::ExportReport report = exporter::quantize(tiny.cpu.ctx, tiny.exporting(target, "quantized"));
    EXPECT_EQ(report.target, target);
    EXPECT_EQ(tiny.nll(report.path), tiny.nll(tiny.recipe.model.path, scheme));
    const exporter::ExportReport exported = exporter::export_model(tiny.cpu.ctx, tiny.exporting(target, "exported"));
    EXPECT_FALSE(exported.as_trained);  // rounded now
    EXPECT_EQ(testing::slurp(fs::path(exported.path) / "model.safetensors"),
              testing::slurp(fs::path(report.path) / "model.safetensors"));
  }
}

INSTANTIATE_TEST_SUITE_P(Schemes, WireExport,
                         ::testing::Values(std::pair{"int4", "torchao"}, std::pair{"int8-int4", "torchao"},
                                           std::pair{"fp8-fp8", "torchao"}, std::pair{"nvfp4", "torchao"},
                                           std::pair{"w4a16", "compressed-tensors"}, std::pair{"w8a8", "compressed-tensors"},
                                           std::pair{"nf4", "bitsandbytes"}, std::pair{"int4-gptq", "gptq"},
                                           std::pair{"int4-awq", "gptq-v2"}, std::pair{"int4-awq", "awq"}));

/// Rows of 96 are three groups of 32, no multiple of 64; those of 256 are two groups of 128.
TEST(WireExports, RowsThatAreNoMultipleOfTheGroup) {
  for (const auto& [scheme, target] :
       {std::pair{"int4", "torchao"}, std::pair{"fp8-int4", "torchao"}, std::pair{"int4-sym-g128-bf16", "torchao"},
        std::pair{"w4a16", "compressed-tensors"}, std::pair{"w4afp8", "compressed-tensors"}}) {
    SCOPED_TRACE(scheme);
    Tiny tiny(scheme, testing::RandomModel{.vocab = 80, .hidden = 96, .intermediate = 256});
    tiny.recipe.exporting.to = target;
    tiny.recipe.train.steps = 2;
    const exporter::ExportReport rounded = exporter::quantize(tiny.cpu.ctx, tiny.exporting(target, "quantized"));
    EXPECT_EQ(tiny.nll(rounded.path), tiny.nll(tiny.recipe.model.path, scheme));
    const auto reader = model::CheckpointReader::open(rounded.path);
    std::set<std::int64_t> groups;
    for (std::size_t i = 0; i < reader.table().size(); ++i)
      if (const quant::Codec* codec = reader.stored(i).encoded.codec) {
        EXPECT_EQ(codec->group(), reader.table()[i].shape[1] == 256 ? 128 : 32) << reader.table()[i].hf_name;
        groups.insert(codec->group());
      }
    EXPECT_EQ(groups.size(), 2);
    train::train(tiny.cpu.ctx, tiny.recipe, tiny.data);
    recipe::Recipe exporting = tiny.exporting(target, "folder");
    exporting.model = {.path = "", .run = tiny.recipe.out};
    exporting.quant.scheme = "none";  // the run knows its own
    const exporter::ExportReport report = exporter::export_model(tiny.cpu.ctx, exporting);
    EXPECT_TRUE(report.as_trained);
    EXPECT_EQ(tiny.nll(report.path), tiny.nll(tiny.recipe.out));
  }
}

TEST(WireExports, OneGroupForAModelIsRefusedBeforeAnyWork) {
  Tiny tiny("int4-gptq", testing::RandomModel{.vocab = 80, .hidden = 96, .intermediate = 256});
  const auto message = [&](const std::string& scheme) -> std::string {
    recipe::Recipe recipe = tiny.exporting("gptq", "refused");
    recipe.quant.scheme = scheme;
    try {
      exporter::quantize(tiny.cpu.ctx, recipe);
    } catch (const BadRecipe& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message("int4-gptq").find("int4-gptq-g32 is the same in groups that fit"), std::string::npos)
      << message("int4-gptq");
  EXPECT_NE(message("int4-ctsym-g128-f16").find("one format"), std::string::npos) << message("int4-ctsym-g128-f16");
  EXPECT_EQ(message("int4-gptq-g32"), "");
}

TEST(WireExports, ShipWhatWasTrained) {
  for (const bool tied : {false, true}) {
    Tiny tiny(tied, "int8-int4");
    tiny.recipe.exporting.to = "torchao";
    train::train(tiny.cpu.ctx, tiny.recipe, tiny.data);
    recipe::Recipe exporting = tiny.exporting("torchao", "folder");
    exporting.model = {.path = "", .run = tiny.recipe.out};
    exporting.quant.scheme = "none";  // the run knows its own
    const exporter::ExportReport report = exporter::export_model(tiny.cpu.ctx, exporting);
    EXPECT_TRUE(report.as_trained);
    EXPECT_EQ(tiny.nll(report.path), tiny.nll(tiny.recipe.out));
    const auto config = files::read_json(fs::path(report.path) / "config.json");
    EXPECT_EQ(config.at("tie_word_embeddings"), false) << "only the head's input is rounded";
  }
}

TEST(WireExports, AByteThatDiffersIsFound) {
  Tiny tiny(false, "int4");
  const fs::path folder = exporter::quantize(tiny.cpu.ctx, tiny.exporting("torchao", "quantized")).path;
  const auto reader = model::CheckpointReader::open(tiny.recipe.model.path);
  const exporter::ExportSource source(reader, nullptr);
  EXPECT_NO_THROW(exporter::verify_wire(tiny.cpu.ctx, source, quant::scheme("int4"), folder));
  EXPECT_THROW(exporter::verify_wire(tiny.cpu.ctx, source, quant::scheme("int8"), folder), VerifyFailed);
  std::fstream file(folder / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-1, std::ios::end);
  const char last = static_cast<char>(file.get() ^ 1);
  file.seekp(-1, std::ios::end);
  file.put(last);
  file.close();
  EXPECT_THROW(exporter::verify_wire(tiny.cpu.ctx, source, quant::scheme("int4"), folder), VerifyFailed);
}

template <class Call>
void refused(Call&& call, std::string_view expected) {
  try {
    call();
    ADD_FAILURE() << "not refused; expected: " << expected;
  } catch (const BadRecipe& error) {
    EXPECT_NE(std::string(error.what()).find(expected), std::string::npos) << error.what();
  }
}

TEST(WireExports, WhatATargetCannotCarryIsRefusedBeforeAnyWork) {
  const auto train = [](const char* scheme, const char* target) {
    Tiny tiny(false, scheme);
    tiny.recipe.exporting.to = target;
    refused([&] { train::train(tiny.cpu.ctx, tiny.recipe, tiny.data); }, target);
    EXPECT_FALSE(fs::exists(fs::path(tiny.recipe.out) / "checkpoints"));
  };
  train("int4", "bitsandbytes");
  train("nf4", "torchao");
  train("nf4", "gguf:q4_0");
  train("int4", "executorch");
  train("none", "torchao");
  const auto quantize = [](const char* scheme, const char* target, std::string_view expected) {
    Tiny tiny(false, scheme);
    refused([&] { exporter::quantize(tiny.cpu.ctx, tiny.exporting(target, "quantized")); }, expected);
    EXPECT_FALSE(fs::exists(tiny.folder / "quantized"));
  };
  quantize("q4_0", "torchao", "torchao cannot carry scheme q4_0");
  quantize("int4", "hf", "temper export");
  quantize("int4", "onnx", "torchao");
  Tiny tiny;
  refused([&] { exporter::export_model(tiny.cpu.ctx, tiny.exporting("torchao", "folder")); }, "give --scheme");
}

}  // namespace
}  // namespace temper
