// Training through integer products: its loss is that of what it exports, to the bit.
#include <gtest/gtest.h>

#include <cstring>

#include "eval/loaded_model.h"
#include "eval/score.h"
#include "export/export.h"
#include "tiny_model.h"
#include "train_fixture.h"

namespace temper {
namespace {

struct Trained {
  testing::TinyRun tiny;
  train::TrainResult result;

  Trained(const ExecContext& ctx, const std::string& scheme) : tiny({.vocab = 80}, scheme) {
    testing::write_tiny_tokenizer(tiny.recipe.model.path);
    tiny.recipe.quant.forward = recipe::Forward::Integer;
    result = train::train(ctx, tiny.recipe, tiny.data);
  }

  /// NLL a token of the held-out rows, as training adds it up.
  double nll(const ExecContext& ctx, const std::filesystem::path& path) const {
    const auto opened = eval::LoadedModel::open(ctx, path);
    double sum = 0;
    std::int64_t tokens = 0;
    for (const eval::RowScore& score : eval::score_samples(ctx, opened->transformer(), tiny.data.held_out)) {
      sum += score.nll;
      tokens += score.tokens;
    }
    return sum / static_cast<double>(tokens);
  }
};

TEST(IntegerForward, LossOfTrainingIsThatOfTheExportedFile) {
  for (const DType compute : {DType::F32, DType::BF16}) {
    if (compute == DType::BF16 && !has_bf16_products(active_isa())) continue;
    testing::CpuContext cpu(compute);
    cpu.ctx.activations = Activations::Bits8;
    const Trained trained(cpu.ctx, "q4_0");
    recipe::Recipe exporting = trained.tiny.recipe;
    exporting.model = {.path = "", .run = trained.tiny.recipe.out};
    exporting.exporting.to = "gguf:q4_0";
    exporting.out = (trained.tiny.folder / "model.gguf").string();
    exporter::export_model(cpu.ctx, exporting);
    EXPECT_EQ(trained.result.held_out->nll, trained.nll(cpu.ctx, exporting.out));
    EXPECT_EQ(trained.result.held_out->nll, trained.nll(cpu.ctx, trained.tiny.recipe.out));
    cpu.ctx.integer_products = false;  // nearly the same, but not this loss
    EXPECT_NE(trained.result.held_out->nll, trained.nll(cpu.ctx, exporting.out));
    EXPECT_NEAR(trained.result.held_out->nll, trained.nll(cpu.ctx, exporting.out), 0.05);
  }
}

TEST(IntegerForward, AScaleForEachToken) {
  testing::CpuContext cpu;
  const Trained trained(cpu.ctx, "int8-int4");
  EXPECT_EQ(trained.result.held_out->nll, trained.nll(cpu.ctx, trained.tiny.recipe.out));
}

}  // namespace
}  // namespace temper
