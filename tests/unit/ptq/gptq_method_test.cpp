// GPTQ, AWQ and SmoothQuant of a whole (tiny) model, as the dispatch of quant.method runs them.
#include "ptq/gptq_method.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "matrices.h"
#include "ops/cpu/cpu_backend.h"
#include "ptq/quantizer.h"
#include "random_model.h"
#include "temporary_folder.h"

namespace temper::ptq {
namespace {

using recipe::QuantMethod;
using recipe::QuantTransform;

class Methods : public ::testing::Test {
 protected:
  Arena arena_{std::size_t{1} << 30};
  ExecContext ctx_{&ops::cpu_backend(), &arena_, DType::F32};
  testing::TemporaryFolder folder_;
  testing::RandomModel shape_{.dtype = DType::F32};
  std::vector<text::Sample> samples_ = testing::counting_samples(60, shape_.vocab, 3);
  Calibration calibration_;

  void SetUp() override {
    testing::write_random_model(folder_ / "model", shape_);
    calibration_.batches.emplace_back(text::batch_of(std::span(samples_).first(40)));
    calibration_.sequences = 40;
    calibration_.tokens = static_cast<std::int64_t>(calibration_.batches.front().view().tokens.size());
  }

  std::vector<float> logits(model::WeightSource& weights, const model::ArchSpec& arch) {
    model::Transformer transformer(arch, weights, nullptr, /*merged=*/true);
    const eval::ModelBatch batch(text::batch_of(std::span(samples_).last(20)));
    std::vector<std::int32_t> rows(batch.view().tokens.size());
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<std::int32_t>(i);
    std::vector<float> all;
    transformer.logits(ctx_, batch.view(), rows, [&](std::size_t, const TensorView& chunk) {
      const auto values = chunk.span<const float>();
      all.insert(all.end(), values.begin(), values.end());
    });
    return all;
  }

  /// Root mean square by which the logits of samples that were not calibrated on are off.
  double error(const std::string& scheme, QuantMethod method, QuantTransform transform = QuantTransform::None) {
    const auto reader = model::CheckpointReader::open(folder_ / "model");
    model::BaseWeights base(reader, DType::F32);
    const std::vector<float> expected = logits(base, reader.arch());
    recipe::Recipe recipe;
    recipe.quant.scheme = scheme;
    recipe.quant.method = method;
    recipe.quant.transform = transform;
    model::EncodedWeights weights(ctx_, base, quant::scheme(scheme), DType::F32, model::Codes::Given);
    const auto made = make_method(recipe, nullptr);
    make_codes(ctx_, weights, *made, &calibration_, 1 << 20);
    const std::vector<float> found = logits(weights, reader.arch());
    double sum = 0.0;
    for (std::size_t i = 0; i < found.size(); ++i) sum += std::pow(static_cast<double>(found[i]) - expected[i], 2);
    return std::sqrt(sum / static_cast<double>(found.size()));
  }
};

TEST_F(Methods, GptqLosesLessThanNearestAndThanClippedRanges) {
  for (const char* scheme : {"int3-sym-g32", "int4-sym-g32", "q4_0", "nvfp4"}) {
    const double nearest = error(scheme, QuantMethod::Rtn), clipped = error(scheme, QuantMethod::Mse);
    const double gptq = error(scheme, QuantMethod::Gptq);
    EXPECT_LT(gptq, 0.9 * nearest) << scheme;
    EXPECT_LT(gptq, clipped) << scheme;
  }
}

TEST_F(Methods, ImportanceWeighsErrorsOfFormatsThatAreNotGguf) {
  // The first of 4 columns counts 100 times: its squared error falls, at the others' cost.
  const Tensor values = testing::normal_matrix(16, 128, 5);
  std::vector<float> importance(128);
  for (std::size_t c = 0; c < importance.size(); ++c) importance[c] = c % 4 == 0 ? 100.0f : 1.0f;
  const auto heavy = [&](const quant::Codec& codec, std::span<const std::byte> bytes) {
    const Tensor decoded(DType::F32, {16, 128});
    codec.decode_rows(bytes, decoded);
    double sum = 0.0;
    for (std::size_t i = 0; i < decoded.span<float>().size(); i += 4)
      sum += std::pow(static_cast<double>(decoded.span<float>()[i]) - values.span<float>()[i], 2);
    return sum;
  };
  const model::TensorInfo info{};
  for (const char* name : {"int3-sym-g32", "nf4", "mxfp4", "fp8-e4m3"}) {
    const Matrix matrix{0, info, values, *quant::find_codec(name)};
    const double weighted = heavy(matrix.codec, encode_importance(ctx_, matrix, importance));
    EXPECT_LT(weighted, heavy(matrix.codec, encode_rtn(ctx_, matrix))) << name;
    EXPECT_LT(weighted, heavy(matrix.codec, encode_mse(ctx_, matrix, {}))) << name;
  }
  const Matrix nested{0, info, values, *quant::find_codec("nf4-dq")};
  EXPECT_THROW(encode_mse(ctx_, nested, {}), BadRecipe);
  EXPECT_THROW(encode_importance(ctx_, nested, importance), BadRecipe);
}

TEST_F(Methods, ScalesThenRoundingStayCloseToTheModel) {
  const double nearest = error("int3-sym-g32", QuantMethod::Rtn);
  EXPECT_LT(error("int3-sym-g32", QuantMethod::Gptq, QuantTransform::Awq), 0.9 * nearest);
  // Without rounding to speak of, scales alone change nothing.
  EXPECT_LT(error("int8-sym-g32", QuantMethod::Rtn, QuantTransform::Awq), 0.1 * nearest);
  EXPECT_LT(error("int8-sym-g32", QuantMethod::Rtn, QuantTransform::SmoothQuant), 0.1 * nearest);
}

TEST_F(Methods, ScalesNeedCalibration) {
  const auto reader = model::CheckpointReader::open(folder_ / "model");
  model::BaseWeights base(reader, DType::F32);
  model::EncodedWeights weights(ctx_, base, quant::scheme("q4_0"), DType::F32, model::Codes::Given);
  recipe::Recipe recipe;
  recipe.quant.transform = QuantTransform::Awq;
  EXPECT_THROW(make_codes(ctx_, weights, *make_method(recipe, nullptr), nullptr, 0), BadRecipe);
  recipe.quant.transform = QuantTransform::None;
  recipe.quant.method = QuantMethod::Gptq;
  EXPECT_THROW(make_codes(ctx_, weights, *make_method(recipe, nullptr), nullptr, 0), BadRecipe);
}

}  // namespace
}  // namespace temper::ptq
