// Weights changed so that the model computes the same: scales folded, norms folded, rotations; AWQ's and SmoothQuant's
// factors.
#include "ptq/fold.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "matrices.h"
#include "model/transformer.h"
#include "ptq/awq.h"
#include "ptq/gptq.h"
#include "ptq/input_moments.h"
#include "ptq/rotate.h"
#include "ptq/smooth.h"
#include "random_model.h"
#include "temporary_folder.h"
#include "text/packing.h"

namespace temper::ptq {
namespace {

using model::LinearInput;

class Fold : public ::testing::Test {
 protected:
  Arena arena_{std::size_t{1} << 30};
  ExecContext ctx_{&ops::cpu_backend(), &arena_, DType::F32};
  temper::testing::TemporaryFolder folder_;

  model::CheckpointReader make(temper::testing::RandomModel model) {
    model.dtype = DType::F32;
    const auto path = folder_ / ("model" + std::to_string(made_++));
    temper::testing::write_random_model(path, model);
    return model::CheckpointReader::open(path);
  }

  /// Logits of a document of 24 tokens, every row.
  std::vector<float> logits(const model::CheckpointReader& reader, model::Taps* taps = nullptr) {
    model::BaseWeights weights(reader, DType::F32);
    model::Transformer transformer(reader.arch(), weights);
    transformer.set_taps(taps);
    constexpr std::int32_t n = 24;
    std::vector<std::int32_t> tokens, positions, targets(n, -1), rows;
    for (std::int32_t t = 0; t < n; ++t) {
      tokens.push_back((t * 37 + 11) % static_cast<std::int32_t>(reader.arch().vocab_size));
      positions.push_back(t);
      rows.push_back(t);
    }
    const ops::AttentionSpan span{0, n, 0, n};
    std::vector<float> all;
    transformer.logits(ctx_, {tokens, positions, targets, {&span, 1}}, rows, [&](std::size_t, const TensorView& chunk) {
      const auto values = chunk.span<const float>();
      all.insert(all.end(), values.begin(), values.end());
    });
    return all;
  }

  /// Both models are exact functions of their f32 weights up to the rounding of sums: each of the seven products in a row of
  /// a block, and the head, is off by at most K · 2^-24 of its size, for either model, and so are the weights that were
  /// folded.
  static void expect_same(const std::vector<float>& found, const std::vector<float>& expected, const model::ArchSpec& arch) {
    ASSERT_EQ(found.size(), expected.size());
    float largest = 0.0f, worst = 0.0f;
    for (const float x : expected) largest = std::max(largest, std::fabs(x));
    for (std::size_t i = 0; i < found.size(); ++i) worst = std::max(worst, std::fabs(found[i] - expected[i]));
    const double products = 7.0 * static_cast<double>(arch.num_layers) + 1.0;
    EXPECT_LT(worst, 2 * products * static_cast<double>(arch.intermediate_size) * 0x1p-24 * largest);
    EXPECT_GT(largest, 0.1f);
  }

 private:
  int made_ = 0;
};

TEST_F(Fold, FactorsOfEveryInputKeepTheLogits) {
  const auto reader = make({});  // four query heads share two value heads
  const std::vector<float> expected = logits(reader);
  Rng rng(3);
  for (const LinearInput input : {LinearInput::Attention, LinearInput::Output, LinearInput::Mlp, LinearInput::Down}) {
    FoldedModel folded(reader);
    for (int layer = 0; layer < folded.table().layers(); ++layer) {
      std::vector<float> factors(static_cast<std::size_t>(folded.factors(input)));
      for (float& f : factors) f = std::exp2(4.0f * rng.uniform() - 2.0f);
      const std::vector<float> before(folded.linear(layer, consumers(input)[0]).span<float>().begin(),
                                      folded.linear(layer, consumers(input)[0]).span<float>().end());
      folded.scale_input(layer, input, factors);
      const auto after = folded.linear(layer, consumers(input)[0]).span<float>();
      EXPECT_FALSE(std::equal(before.begin(), before.end(), after.begin()));
    }
    expect_same(logits(folded.finish(reader, DType::F32)), expected, reader.arch());
  }
  FoldedModel folded(reader);
  EXPECT_THROW(folded.scale_input(0, LinearInput::Attention, std::vector<float>(64, 0.0f)), LogicError);
  EXPECT_THROW(folded.scale_input(0, LinearInput::Attention, std::vector<float>(63, 1.0f)), LogicError);
  EXPECT_THROW(folded.scale_input(0, LinearInput::Head, std::vector<float>(64, 1.0f)), LogicError);
}

TEST_F(Fold, FactorsReachWhatTheRoundingSees) {
  const auto reader = make({});
  InputMoments before, after;
  logits(reader, &before);
  FoldedModel folded(reader);
  const std::vector<float> factors(32, 4.0f);  // two value heads of 16
  folded.scale_input(0, LinearInput::Output, factors);
  folded.scale_input(1, LinearInput::Output, factors);
  logits(folded.finish(reader, DType::F32), &after);
  const auto a = before.hessian(LinearInput::Output).span<const float>();
  const auto b = after.hessian(LinearInput::Output).span<const float>();
  const float largest = *std::ranges::max_element(a);
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(b[i] * 16.0f, a[i], 1e-4f * largest);
}

TEST_F(Fold, NormsGoIntoTheLinearsBehindThem) {
  for (const bool tied : {false, true}) {
    const auto reader = make({.tied = tied});
    FoldedModel folded(reader);
    folded.fold_norms();
    EXPECT_FALSE(folded.arch().tied);
    for (std::size_t i = 0; i < folded.table().size(); ++i) {
      if (folded.table()[i].role != quant::Role::Norm) continue;
      for (const float x : folded.tensor(i).span<float>()) EXPECT_EQ(x, 1.0f);
    }
    expect_same(logits(folded.finish(reader, DType::F32)), logits(reader), reader.arch());
  }
}

TEST_F(Fold, RotationsKeepTheLogits) {
  struct Case {
    std::int64_t hidden, heads, kv_heads;
  };
  // 64 = 2^6, 48 = 12 · 4, 72 = 36 · 2; heads of 16, 12 and 36.
  for (const Case& c : {Case{64, 4, 2}, Case{48, 4, 4}, Case{72, 2, 1}}) {
    for (const bool tied : {false, true}) {
      const auto reader =
          make({.hidden = c.hidden, .intermediate = 96, .heads = c.heads, .kv_heads = c.kv_heads, .tied = tied});
      FoldedModel folded(reader);
      rotate(folded, 7);
      const auto rotated = folded.finish(reader, DType::F32);
      EXPECT_FALSE(rotated.arch().tied);
      EXPECT_FALSE(model::hf_config(rotated.arch()).at("tie_word_embeddings").get<bool>());
      expect_same(logits(rotated), logits(reader), reader.arch());
    }
  }
}

TEST_F(Fold, RotationsSpreadOutliers) {
  auto reader = make({});
  FoldedModel folded(reader);
  const TensorView down = folded.linear(0, model::Linear::Gate);
  for (std::int64_t r = 0; r < down.rows(); ++r) down.as<float>()[r * 64 + 5] *= 30.0f;  // a channel of outliers
  const auto crest = [&] {
    double largest = 0.0, squares = 0.0;
    for (const float x : folded.linear(0, model::Linear::Gate).span<float>()) {
      largest = std::max(largest, static_cast<double>(std::fabs(x)));
      squares += static_cast<double>(x) * x;
    }
    return largest / std::sqrt(squares / static_cast<double>(down.shape.numel()));
  };
  const double before = crest();
  rotate(folded, 1);
  EXPECT_LT(crest(), 0.6 * before);
}

TEST(Hadamard, PaleysMatricesHaveOrthogonalRows) {
  for (const std::int64_t n : {1, 2, 4, 8, 12, 20, 24, 28, 32, 36, 44, 48, 60, 68, 76}) {
    const auto h = paley(n);
    ASSERT_TRUE(h) << n;
    for (std::int64_t i = 0; i < n; ++i)
      for (std::int64_t j = 0; j < n; ++j) {
        int sum = 0;
        for (std::int64_t k = 0; k < n; ++k) sum += (*h)[i * n + k] * (*h)[j * n + k];
        ASSERT_EQ(sum, i == j ? n : 0) << n << ": rows " << i << ", " << j;
      }
  }
  for (const std::int64_t n : {3, 6, 10, 16, 40, 92}) EXPECT_FALSE(paley(n)) << n;
}

TEST(Hadamard, RotationsOfModelsSizesAreOrthogonal) {
  for (const std::int64_t n : {64, 128, 576, 640, 896, 960, 1152, 1536, 2048, 2560, 3584, 5120}) {
    const Rotation rotation(n, 3, 0);
    const Tensor a = temper::testing::normal_matrix(3, n, 5);
    Tensor b(DType::F32, {3, n});
    std::ranges::copy(a.span<float>(), b.span<float>().begin());
    for (std::int64_t r = 0; r < 3; ++r) rotation.apply(b.span<float>().subspan(static_cast<std::size_t>(r * n), n));
    const auto product = [&](const Tensor& x, std::int64_t i, std::int64_t j) {
      double sum = 0.0;
      for (std::int64_t k = 0; k < n; ++k) sum += static_cast<double>(x->as<float>()[i * n + k]) * x->as<float>()[j * n + k];
      return sum;
    };
    // Each element of b is rounded to f32 once: 2^-24 of it.
    for (std::int64_t i = 0; i < 3; ++i)
      for (std::int64_t j = 0; j < 3; ++j)
        EXPECT_NEAR(product(b, i, j), product(a, i, j), 4 * 0x1p-24 * product(a, i, i)) << n;
    const auto same = Rotation(n, 3, 0), other = Rotation(n, 4, 0);
    std::vector<float> x(static_cast<std::size_t>(n), 1.0f), y = x, z = x;
    rotation.apply(x), same.apply(y), other.apply(z);
    EXPECT_EQ(x, y);
    EXPECT_NE(x, z);
  }
  EXPECT_THROW(Rotation(6, 1, 0), Unsupported);
  EXPECT_THROW(Rotation(7, 1, 0), Unsupported);
}

TEST_F(Fold, AWeightsInMemoryMustFitItsTable) {
  const auto reader = make({});
  EXPECT_THROW(model::CheckpointReader::with_weights(reader, reader.arch(), {}), LogicError);
  const auto bf16_reader = FoldedModel(reader).finish(reader, DType::BF16);
  EXPECT_EQ(bf16_reader.arch().dtype, DType::BF16);
  EXPECT_EQ(bf16_reader.stored(bf16_reader.table().head()).format, "BF16");
  EXPECT_EQ(bf16_reader.stored(bf16_reader.table().final_norm()).format, "F32");
  EXPECT_EQ(bf16_reader.path(), reader.path());
}

std::vector<std::int32_t> one_each(std::int64_t n) {
  std::vector<std::int32_t> share(static_cast<std::size_t>(n));
  std::iota(share.begin(), share.end(), 0);
  return share;
}

double error_with(const ExecContext& ctx, const quant::Codec& codec, const TensorView& weights, const TensorView& hessian,
                  std::span<const float> factors, std::span<const std::int32_t> share) {
  const std::int64_t rows = weights.rows(), cols = weights.cols();
  Tensor scaled(DType::F32, weights.shape), out(DType::F32, weights.shape);
  const auto factor = [&](std::int64_t i) {
    return factors[static_cast<std::size_t>(share[static_cast<std::size_t>(i % cols)])];
  };
  for (std::int64_t i = 0; i < rows * cols; ++i) scaled->as<float>()[i] = weights.as<float>()[i] * factor(i);
  std::vector<std::byte> bytes(static_cast<std::size_t>(rows) * codec.row_bytes(cols));
  codec.encode_rows(scaled, bytes);
  codec.decode_rows(bytes, out);
  for (std::int64_t i = 0; i < rows * cols; ++i) out->as<float>()[i] /= factor(i);
  return output_error(ctx, weights, out, hessian);
}

TEST_F(Fold, AwqLosesLessThanRoundingToNearest) {
  constexpr std::int64_t k = 128;
  const Tensor hessian = temper::testing::second_moments(temper::testing::correlated_inputs(300, k, 21));
  const Tensor first = temper::testing::normal_matrix(48, k, 22), second = temper::testing::normal_matrix(24, k, 23);
  for (const char* name : {"int4-sym-g32", "int3-sym-g32", "q4_0", "nvfp4", "fp8-e4m3"}) {
    const quant::Codec& codec = *quant::find_codec(name);
    const std::vector<AwqConsumer> readers = {{first, &codec}, {second, &codec}};
    for (const bool shared : {false, true}) {
      std::vector<std::int32_t> share = one_each(k);
      if (shared)
        for (std::int32_t& f : share) f /= 2;
      const std::vector<float> factors = awq_factors(ctx_, readers, hessian, share);
      EXPECT_EQ(factors.size(), shared ? 64u : 128u);
      const std::vector<float> none(factors.size(), 1.0f);
      double with = 0.0, without = 0.0;
      for (const AwqConsumer& reader : readers) {
        with += error_with(ctx_, codec, reader.weights, hessian, factors, share);
        without += error_with(ctx_, codec, reader.weights, hessian, none, share);
      }
      EXPECT_LE(with, without) << name;
      if (codec.group() == 32 && !shared) {
        EXPECT_LT(with, 0.9 * without) << name;
      }
    }
  }
  const std::vector<AwqConsumer> plain = {{first, nullptr}};
  for (const float f : awq_factors(ctx_, plain, hessian, one_each(k))) EXPECT_EQ(f, 1.0f);
}

TEST(Smooth, FactorsAreTheAuthors) {
  Tensor w(DType::F32, {2, 4}, /*zero=*/true);
  const float values[8] = {1.0f, -2.0f, 0.0f, 0.5f, -4.0f, 1.0f, 0.0f, 0.25f};
  std::ranges::copy(values, w.span<float>().begin());
  const std::vector<TensorView> readers = {w};
  const std::vector<float> largest = {16.0f, 8.0f, 3.0f, 0.0f};
  const std::vector<float> s = smooth_factors(readers, largest, one_each(4), 0.5);
  EXPECT_FLOAT_EQ(s[0], 2.0f);  // √16 / √4
  EXPECT_FLOAT_EQ(s[1], 2.0f);  // √8 / √2
  EXPECT_EQ(s[2], 1.0f);        // no weights
  EXPECT_EQ(s[3], 1.0f);        // no inputs
  const std::vector<std::int32_t> share = {0, 1, 0, 1};
  const std::vector<float> pairs = smooth_factors(readers, largest, share, 1.0);
  EXPECT_FLOAT_EQ(pairs[0], 16.0f);
  EXPECT_FLOAT_EQ(pairs[1], 8.0f);
}

TEST(Moments, AreSumsOverEveryRowShown) {
  Arena arena{std::size_t{1} << 28};
  const ExecContext ctx{&ops::cpu_backend(), &arena, DType::F32};
  const Tensor a = temper::testing::normal_matrix(70, 33, 31), b = temper::testing::normal_matrix(5, 33, 32);
  Tensor narrow(DType::BF16, {5, 33});
  for (std::size_t i = 0; i < narrow.span<bf16>().size(); ++i) {
    narrow.span<bf16>()[i] = to_bf16(b.span<float>()[i]);
    b.span<float>()[i] = to_float(narrow.span<bf16>()[i]);
  }
  InputMoments moments;
  EXPECT_THROW(moments.hessian(LinearInput::Mlp), LogicError);
  moments.input(ctx, 3, LinearInput::Mlp, a);
  moments.input(ctx, 3, LinearInput::Mlp, narrow);
  for (std::int64_t i = 0; i < 33; ++i) {
    float largest = 0.0f;
    for (std::int64_t j = 0; j < 33; ++j) {
      double sum = 0.0, size = 0.0;
      for (const Tensor* x : {&a, &b})
        for (std::int64_t t = 0; t < (*x)->rows(); ++t) {
          const double p = static_cast<double>((*x)->as<float>()[t * 33 + i]) * (*x)->as<float>()[t * 33 + j];
          sum += p;
          size += std::fabs(p);
          largest = std::max(largest, std::fabs((*x)->as<float>()[t * 33 + i]));
        }
      EXPECT_NEAR(moments.hessian(LinearInput::Mlp).as<float>()[i * 33 + j], sum, 76 * 0x1p-24 * size);
    }
    EXPECT_EQ(moments.largest(LinearInput::Mlp)[static_cast<std::size_t>(i)], largest);
  }
  moments.clear();
  EXPECT_THROW(moments.largest(LinearInput::Mlp), LogicError);
}

}  // namespace
}  // namespace temper::ptq
