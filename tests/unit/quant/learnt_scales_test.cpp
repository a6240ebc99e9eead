// Learnt factors of scales: what is stored, which codes go with it, and their gradients against a scalar twin in double.
#include "quant/learnt_scales.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "base/error.h"

namespace temper::quant {
namespace {

constexpr std::int64_t kRows = 3, kCols = 128;

struct Case {
  const char* codec;
  bool bf16_values;
};

class LearntScales : public ::testing::TestWithParam<Case> {
 protected:
  std::mt19937 generator_{11};
  const Codec& codec_ = *find_codec(GetParam().codec);
  const std::size_t bytes_ = codec_.row_bytes(kCols);
  const std::int64_t groups_ = codec_.groups(kCols);
  std::vector<float> w_ = random(1.0f), dw_ = random(1.0f), factors_ = std::vector<float>(kRows * groups_, 1.0f);
  std::vector<bf16> w16_;

  std::vector<float> random(float deviation) {
    std::normal_distribution<float> normal(0.0f, deviation);
    std::vector<float> x(kRows * kCols);
    for (float& v : x) v = normal(generator_);
    return x;
  }
  TensorView values() {
    if (!GetParam().bf16_values) return TensorView(w_.data(), DType::F32, Shape{kRows, kCols});
    if (w16_.empty())
      for (float& w : w_) {
        w16_.push_back(to_bf16(w));
        w = to_float(w16_.back());
      }
    return TensorView(w16_.data(), DType::BF16, Shape{kRows, kCols});
  }
  std::vector<std::byte> encoded() {
    std::vector<std::byte> out(kRows * bytes_);
    encode_with_factors(codec_, values(), factors_, out);
    return out;
  }
  void vary_factors() {
    std::uniform_real_distribution<float> uniform(0.5f, 1.2f);
    for (float& f : factors_) f = uniform(generator_);
    factors_[0] = 0.01f;  // counts as kSmallestFactor
  }
  std::vector<GroupValues> groups(const std::vector<std::byte>& encoded, std::int64_t row) {
    std::vector<GroupValues> out(static_cast<std::size_t>(groups_));
    codec_.group_values(std::span(encoded).subspan(static_cast<std::size_t>(row) * bytes_, bytes_), kCols, out);
    return out;
  }
  std::vector<float> decoded(const std::vector<std::byte>& encoded, std::int64_t row) {
    std::vector<float> out(kCols);
    codec_.decode(std::span(encoded).subspan(static_cast<std::size_t>(row) * bytes_, bytes_), out);
    return out;
  }
};

TEST_P(LearntScales, FactorsOfOneChangeNothing) {
  std::vector<std::byte> plain(kRows * bytes_);
  codec_.encode_rows(values(), plain);
  EXPECT_TRUE(encoded() == plain);
}

TEST_P(LearntScales, TheStoredScaleIsTheProductAndCodesAreThoseThatGoWithIt) {
  const std::vector<std::byte> plain = encoded();
  vary_factors();
  const std::vector<std::byte> found = encoded();
  for (std::int64_t r = 0; r < kRows; ++r) {
    const std::vector<GroupValues> before = groups(plain, r), after = groups(found, r);
    const std::vector<float> value = decoded(found, r);
    for (std::int64_t g = 0; g < groups_; ++g) {
      const double factor = std::max(0.0625, static_cast<double>(factors_[static_cast<std::size_t>(r * groups_ + g)]));
      const GroupValues& group = after[static_cast<std::size_t>(g)];
      const double product = before[static_cast<std::size_t>(g)].scale * factor;
      EXPECT_NEAR(group.scale, product, std::fabs(product) / 256);  // bf16's half unit, the coarsest type
      const double low = std::min(group.low, group.high), high = std::max(group.low, group.high);
      const std::int64_t n = kCols / groups_;
      for (std::int64_t k = g * n; k < (g + 1) * n; ++k) {
        const double w = w_[static_cast<std::size_t>(r * kCols + k)], nearest = std::clamp(w, low, high);
        // Half a step; formats that round quotients to bf16 lose up to half a code more (8 bits).
        const double steps = GetParam().bf16_values ? 1.02 : 0.501;
        EXPECT_LE(std::fabs(value[static_cast<std::size_t>(k)] - nearest), steps * std::fabs(group.scale)) << k;
      }
    }
  }
}

TEST_P(LearntScales, GradientsEqualTheScalarTwin) {
  vary_factors();
  const std::vector<std::byte> codes = encoded();
  std::vector<float> grads(factors_.size(), 0.5f);  // added to
  factor_gradients(codec_, values(), codes, TensorView(dw_.data(), DType::F32, Shape{kRows, kCols}), factors_, grads);
  for (std::int64_t r = 0; r < kRows; ++r) {
    const std::vector<GroupValues> group = groups(codes, r);
    const std::vector<float> value = decoded(codes, r);
    for (std::int64_t g = 0; g < groups_; ++g) {
      const auto at = static_cast<std::size_t>(r * groups_ + g);
      const GroupValues& of = group[static_cast<std::size_t>(g)];
      // d/ds of (q·s + z) with q = clamp(rint((w − z)/s)): q − inside·(w − z)/s; times ds/df = s/f.
      double sum = 0, size = 0;
      const std::int64_t n = kCols / groups_;
      for (std::int64_t k = g * n; k < (g + 1) * n; ++k) {
        const double s = of.scale, z = of.shift, w = w_[static_cast<std::size_t>(r * kCols + k)];
        const double q = (value[static_cast<std::size_t>(k)] - z) / s, t = (w - z) / s;
        const double first = (of.low - z) / s, last = (of.high - z) / s;
        const bool inside = t >= first - 0.5 && t <= last + 0.5;
        const double term = dw_[static_cast<std::size_t>(r * kCols + k)] * (q - (inside ? t : 0.0)) * s;
        sum += term;
        size += std::fabs(term);
      }
      const double factor = std::max(0.0625, static_cast<double>(factors_[at]));
      // A sum of n products in f32 in 8 lanes: each term and each sum is off by 2^-24 of its size at most.
      EXPECT_NEAR(grads[at] - 0.5, sum / factor, (size / factor + 0.5) * static_cast<double>(n) * 0x1p-23) << at;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Codecs, LearntScales,
                         ::testing::Values(Case{"int4-sym-g32", false}, Case{"int4-sym-g32-bf16", true},
                                           Case{"int4-asym-g32", false}, Case{"int4-tinygemm-g32-bf16", true},
                                           Case{"int4-ctsym-g128-bf16", true}, Case{"int8-sym", false},
                                           Case{"int8-sym-g32-bf16", true}, Case{"q4_0", false}, Case{"q5_0", false},
                                           Case{"q8_0", false}),
                         [](const auto& test) {
                           std::string name = test.param.codec;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

TEST(LearntScale, OtherFormatsRefuse) {
  for (const char* name : {"q4_k", "q4_1", "nf4", "mxfp4", "fp8-e4m3", "nvfp4", "int8-static-sym"}) {
    const Codec& codec = *find_codec(name);
    EXPECT_FALSE(codec.has_learnable_scales()) << name;
    std::vector<std::byte> row(codec.row_bytes(256));
    EXPECT_THROW(encode_with_factors(codec, TensorView(), {}, row), LogicError) << name;
  }
}

}  // namespace
}  // namespace temper::quant
