// Weights too large for the scales of a format: found, whatever the format, and named.
#include "quant/overflow.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "base/error.h"

namespace temper::quant {
namespace {

constexpr std::int64_t kRows = 4, kCols = 256;

/// Encoded values of either sign around 1, with `large` once in row 2.
struct Encoded {
  std::vector<std::byte> bytes;
  EncodedView view;

  Encoded(const Codec& codec, float large) : bytes(static_cast<std::size_t>(kRows) * codec.row_bytes(kCols)) {
    Tensor values(DType::F32, {kRows, kCols});
    for (std::int64_t i = 0; i < kRows * kCols; ++i)
      values->as<float>()[i] = (i % 3 == 0 ? -1.0f : 1.0f) * (1.0f + static_cast<float>(i % 7));
    if (large != 0.0f) values->as<float>()[2 * kCols + 77] = large;
    codec.encode_rows(values, bytes);
    view = {&codec, kRows, kCols, bytes};
  }
  std::int64_t first() const { return view.codec->first_overflow(bytes, kRows, kCols); }
};

class Overflow : public ::testing::TestWithParam<std::pair<const char*, float>> {};

TEST_P(Overflow, IsFoundInItsRow) {
  const auto& [name, large] = GetParam();
  const Codec& codec = *find_codec(name);
  EXPECT_EQ(Encoded(codec, 0.0f).first(), -1);
  for (const float sign : {1.0f, -1.0f}) {
    const Encoded encoded(codec, sign * large);
    EXPECT_EQ(encoded.first(), 2) << sign * large;
    const std::string why = overflow_of(encoded.view, "model.layers.0.mlp.up_proj.weight", 100);
    for (const char* part : {"model.layers.0.mlp.up_proj.weight", "row 102", name})
      EXPECT_NE(why.find(part), std::string::npos) << why;
    EXPECT_THROW(require_no_overflow(encoded.view, "x"), Unsupported);
  }
}

/// Magnitudes of which the scale just exceeds what is stored.
INSTANTIATE_TEST_SUITE_P(
    Formats, Overflow,
    ::testing::Values(std::pair{"q4_0", 8 * 65600.0f}, std::pair{"q5_0", 16 * 65600.0f}, std::pair{"q8_0", 127 * 65600.0f},
                      std::pair{"q4_1", 15 * 65600.0f}, std::pair{"q5_1", 31 * 65600.0f}, std::pair{"q2_k", 1e8f},
                      std::pair{"q3_k", 1e9f}, std::pair{"q4_k", 1e9f}, std::pair{"q5_k", 1e9f}, std::pair{"q6_k", 1e9f},
                      std::pair{"iq4_nl", 1e8f}, std::pair{"iq4_xs", 1e9f}, std::pair{"tq1_0", 65600.0f},
                      std::pair{"tq2_0", 65600.0f}, std::pair{"gguf-nvfp4", 2700.0f}, std::pair{"nvfp4-local", 2800.0f},
                      std::pair{"int4-sym-g32-f16", 7.5f * 65600.0f}, std::pair{"int4-ctsym-g128-f16", 7.5f * 65600.0f},
                      std::pair{"int4-asym-g32-f16", 65600.0f}, std::pair{"int4-ctasym-g64-f16", 65600.0f},
                      std::pair{"int4-tinygemm-g32-f16", 15 * 65600.0f}, std::pair{"int4-mslk-g128-f16", 8 * 65600.0f},
                      std::pair{"int8-sym-f16", 127.5f * 65600.0f}),
    [](const auto& tested) {
      std::string name = tested.param.first;
      std::ranges::replace(name, '-', '_');
      return name;
    });

TEST(OverflowOf, ARangeBeyondF32IsFound) {
  for (const char* name : {"int8-asym", "int8-ctasym-bf16", "int4-tinygemm-g32", "int4-tinygemm-g128-bf16",
                           "int4-tinygemm-g32-f16", "int8-tinygemm-bf16"}) {
    const Codec& codec = *find_codec(name);
    Tensor values(DType::F32, {kRows, kCols}, /*zero=*/true);
    values->as<float>()[3 * kCols] = 3e38f;
    values->as<float>()[3 * kCols + 1] = -3e38f;
    std::vector<std::byte> bytes(static_cast<std::size_t>(kRows) * codec.row_bytes(kCols));
    codec.encode_rows(values, bytes);
    EXPECT_EQ(codec.first_overflow(bytes, kRows, kCols), 3) << name;
  }
}

/// Values far from zero within a narrow range: the scale is small, and the zero point is what its type cannot hold.
TEST(OverflowOf, AZeroPointBeyondItsTypeIsFound) {
  for (const auto& [name, value, row] :
       {std::tuple{"int4-tinygemm-g32-f16", 70000.0f, 3}, std::tuple{"int4-tinygemm-g32-f16", 60000.0f, -1},
        std::tuple{"int4-tinygemm-g32-bf16", 3.4e38f, 3}, std::tuple{"int4-tinygemm-g32-bf16", 3e38f, -1}})
    for (const float sign : {1.0f, -1.0f}) {
      const Codec& codec = *find_codec(name);
      Tensor values(DType::F32, {kRows, kCols}, /*zero=*/true);
      std::fill_n(values->as<float>() + 3 * kCols + 32, 32, sign * value);
      std::vector<std::byte> bytes(static_cast<std::size_t>(kRows) * codec.row_bytes(kCols));
      codec.encode_rows(values, bytes);
      EXPECT_EQ(codec.first_overflow(bytes, kRows, kCols), row) << name << " " << sign * value;
    }
}

TEST(OverflowOf, WhatFitsIsLeftAlone) {
  // Just below the end of the type.
  for (const auto& [name, large] :
       {std::pair{"q4_0", 8 * 65000.0f}, std::pair{"q8_0", 127 * 65000.0f}, std::pair{"int4-sym-g32-f16", 7.5f * 65000.0f},
        std::pair{"int4-asym-g32-f16", 65000.0f}, std::pair{"tq2_0", 65000.0f}})
    EXPECT_EQ(Encoded(*find_codec(name), large).first(), -1) << name;
  // bf16, f32 and powers of two reach as far as weights do; a tensor's scale makes room for the largest.
  for (const char* name :
       {"int4-sym-g32", "int4-sym-g32-bf16", "int8-sym-bf16", "int4-tinygemm-g32", "int4-tinygemm-g128-bf16", "nf4",
        "nf4-dq", "fp8-e4m3-bf16", "mxfp4", "nvfp4", "nvfp4-ct", "gguf-mxfp4"})
    EXPECT_EQ(Encoded(*find_codec(name), 1e30f).first(), -1) << name;
  // Groups of zeros.
  for (const Codec* codec : codecs()) {
    if (!codec->encodes() || !codec->fits(kCols)) continue;
    Tensor zeros(DType::F32, {kRows, kCols}, /*zero=*/true);
    std::vector<std::byte> bytes(static_cast<std::size_t>(kRows) * codec->row_bytes(kCols));
    codec->encode_rows(zeros, bytes);
    EXPECT_EQ(codec->first_overflow(bytes, kRows, kCols), -1) << codec->name();
    Tensor decoded(DType::F32, {kRows, kCols});
    codec->decode_rows(bytes, decoded);
    EXPECT_TRUE(std::ranges::all_of(decoded->span<const float>(), [](float x) { return x == 0.0f; })) << codec->name();
  }
}

}  // namespace
}  // namespace temper::quant
