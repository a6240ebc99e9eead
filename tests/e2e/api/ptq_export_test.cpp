// Every method of post-training quantization into every kind of file: what is reopened is what the method made, bit for bit.
#include <gtest/gtest.h>

#include <cstring>

#include "base/atomic_file.h"
#include "base/rng.h"
#include "eval/loaded_model.h"
#include "eval/score.h"
#include "export/export.h"
#include "ptq/quantizer.h"
#include "quant/activations.h"
#include "tiny_model.h"
#include "train_fixture.h"

namespace temper {
namespace {

using recipe::QuantMethod;
using recipe::QuantTransform;

struct Way {
  const char* name;
  QuantMethod method;
  QuantTransform transform = QuantTransform::None;
};

constexpr Way kWays[] = {{"percentile", QuantMethod::Percentile},
                         {"mse", QuantMethod::Mse},
                         {"importance", QuantMethod::Importance},
                         {"gptq", QuantMethod::Gptq},
                         {"awq", QuantMethod::Rtn, QuantTransform::Awq},
                         {"awq+gptq", QuantMethod::Gptq, QuantTransform::Awq},
                         {"smoothquant", QuantMethod::Rtn, QuantTransform::SmoothQuant}};

/// Letters and spaces that the tiny tokenizer knows.
std::string letters(std::size_t count) {
  Rng rng(3, 1);
  std::string text;
  for (std::size_t i = 0; i < count; ++i) text += "abcdefgh ij klm"[static_cast<std::size_t>(rng.uniform() * 15.0f)];
  return text;
}

/// A model of which K-quants' superblocks divide the rows.
struct Tiny : testing::TinyRun {
  testing::CpuContext cpu;

  Tiny(const char* scheme, const char* target)
      : testing::TinyRun({.vocab = 80, .hidden = 256, .intermediate = 256, .layers = 1}, scheme) {
    testing::write_tiny_tokenizer(recipe.model.path);
    recipe.exporting.to = target;
    recipe.calibration.path = (folder / "calibration.txt").string();
    recipe.calibration.context = 64;
    write_file(recipe.calibration.path, letters(1000));
  }

  recipe::Recipe by(const Way& way) const {
    recipe::Recipe other = to(way.name + (recipe.exporting.to.starts_with("gguf") ? std::string(".gguf") : std::string()));
    other.quant.method = way.method;
    other.quant.transform = way.transform;
    const bool weights_only = way.method == QuantMethod::Rtn || way.method == QuantMethod::Percentile;
    const quant::Codec* input = quant::scheme(recipe.quant.scheme).input;
    if (weights_only && way.transform == QuantTransform::None && !(input && quant::has_static_range(*input)))
      other.calibration.path.clear();
    return other;
  }
  std::unique_ptr<eval::LoadedModel> quantized(ptq::Quantizer& quantizer) {
    const eval::CodeMaker maker = quantizer.maker();
    return eval::LoadedModel::open(cpu.ctx, recipe.model.path, recipe.quant.scheme, &maker);
  }
  double nll(eval::LoadedModel& model) {
    double sum = 0;
    for (const eval::RowScore& score : eval::score_samples(cpu.ctx, model.transformer(), data.held_out)) sum += score.nll;
    return sum;
  }
};

/// Every matrix that the method rounded is held in a number format in the file, too, and decodes to the same bits.
void expect_same_weights(const ExecContext& ctx, const model::EncodedWeights& made, const std::filesystem::path& path) {
  const auto reader = model::CheckpointReader::open(path);
  const model::BaseWeights stored(reader, DType::F32);
  ASSERT_EQ(reader.table().size(), made.table().size());
  std::size_t rounded = 0;
  for (std::size_t i = 0; i < made.table().size(); ++i) {
    const quant::EncodedView codes = made.encoded(i);
    if (!codes.codec) continue;
    ++rounded;
    ASSERT_TRUE(stored.encoded(i)) << made.table()[i].hf_name;
    const Tensor expected(DType::F32, {codes.rows, codes.cols});
    codes.codec->decode_rows(codes.bytes, expected);
    const ArenaScope scope(*ctx.workspace);
    const TensorView found = stored.values(ctx, i, DType::F32);
    EXPECT_EQ(std::memcmp(found.data, expected->data, expected->bytes()), 0) << made.table()[i].hf_name;
  }
  EXPECT_GE(rounded, 7u);
}

class PtqExport : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(PtqExport, HoldsWhatEachMethodMade) {
  const auto& [scheme, target] = GetParam();
  Tiny tiny(scheme, target);
  std::string nearest;
  {
    const recipe::Recipe recipe = tiny.by({"rtn", QuantMethod::Rtn});
    ptq::Quantizer quantizer(recipe);
    nearest = eval::codes_checksum(*tiny.quantized(quantizer)->encoded());
  }
  for (const Way& way : kWays) {
    SCOPED_TRACE(way.name);
    recipe::Recipe recipe = tiny.by(way);
    ptq::Quantizer quantizer(recipe);
    std::unique_ptr<eval::LoadedModel> made;
    try {
      made = tiny.quantized(quantizer);
    } catch (const BadRecipe& refused) {
      EXPECT_NE(std::string(refused.what()).find("no range to clip"), std::string::npos) << refused.what();
      continue;
    }
    // Others may find that the format's own fit is the best there is.
    if (way.method == QuantMethod::Gptq || way.transform == QuantTransform::SmoothQuant) {
      EXPECT_NE(eval::codes_checksum(*made->encoded()), nearest);
    }
    const exporter::MadeCodes codes{*made, std::nullopt, quantizer.description()};
    const exporter::ExportReport report = exporter::quantize(tiny.cpu.ctx, recipe, &codes);
    expect_same_weights(tiny.cpu.ctx, *made->encoded(), report.path);
    const auto reopened = eval::LoadedModel::open(tiny.cpu.ctx, report.path);
    EXPECT_EQ(tiny.nll(*reopened), tiny.nll(*made));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Folders, PtqExport,
    ::testing::Values(std::pair{"int4", "torchao"}, std::pair{"int8-int4", "torchao"}, std::pair{"int8-int8", "torchao"},
                      std::pair{"fp8-fp8", "torchao"}, std::pair{"fp8-int4", "torchao"}, std::pair{"nvfp4", "torchao"},
                      std::pair{"mxfp4", "torchao"}, std::pair{"w4a16", "compressed-tensors"},
                      std::pair{"w8a8", "compressed-tensors"}, std::pair{"fp8-dynamic", "compressed-tensors"},
                      std::pair{"nvfp4a16", "compressed-tensors"}, std::pair{"mxfp4a16", "compressed-tensors"},
                      std::pair{"fp8-block", "compressed-tensors"}, std::pair{"fp8-static", "compressed-tensors"},
                      std::pair{"nvfp4-w4a4", "compressed-tensors"}, std::pair{"nf4", "bitsandbytes"},
                      std::pair{"nf4-dq", "bitsandbytes"}, std::pair{"fp4", "bitsandbytes"}, std::pair{"int4-gptq", "gptq"},
                      std::pair{"int4-awq", "gptq-v2"}, std::pair{"int4-awq", "awq"}));

INSTANTIATE_TEST_SUITE_P(Gguf, PtqExport,
                         ::testing::Values(std::pair{"q4_0", "gguf:q4_0"}, std::pair{"q5_1", "gguf:q5_1"},
                                           std::pair{"q8_0", "gguf:q8_0"}, std::pair{"q2_k", "gguf:q2_k"},
                                           std::pair{"q3_k_m", "gguf:q3_k_m"}, std::pair{"q4_k_m", "gguf:q4_k_m"},
                                           std::pair{"iq4_nl", "gguf:iq4_nl"}));

}  // namespace
}  // namespace temper
