// Rounding with the parameters that an encoding holds: fast paths equal the definition bit for bit, nothing but codes
// changes, and what is decoded keeps its codes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <vector>

#include "base/rng.h"
#include "quant/codec.h"
#include "quant/row_kernels.h"

namespace temper::quant {
namespace {

constexpr std::int64_t kRows = 5, kCols = 512;

/// Rows of magnitudes from 1e-3 to 1, the last but one of zeros.
Tensor values(std::uint64_t stream, DType dtype) {
  Rng rng(21, stream);
  Tensor out(dtype, {kRows, kCols});
  for (std::int64_t r = 0; r < kRows; ++r)
    for (std::int64_t c = 0; c < kCols; ++c) {
      const float scale = r == 3 ? 0.0f : c % 64 < 32 ? 1.0f : 1e-3f;
      const float x = to_float(to_bf16(scale * (rng.uniform() + rng.uniform() - 1.0f)));
      if (dtype == DType::F32)
        out->as<float>()[r * kCols + c] = x;
      else
        out->as<bf16>()[r * kCols + c] = to_bf16(x);
    }
  return out;
}

std::vector<std::byte> encoded(const Codec& codec, const TensorView& matrix) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(matrix.rows()) * codec.row_bytes(matrix.cols()));
  codec.encode_rows(matrix, bytes);
  return bytes;
}

std::vector<const Codec*> encoding_codecs() {
  std::vector<const Codec*> all;
  for (const Codec* codec : codecs())
    if (codec->encodes()) all.push_back(codec);
  for (const char* name : {"int2-sym-g32-bf16", "int3-asym-g64-f16", "int4-tinygemm-g128-bf16", "int5-ctsym-g32-bf16",
                           "int6-ctasym-g64-bf16", "int4-mslk-g128", "int4-symfull-g32-bf16", "int8-symeps"})
    if (std::ranges::find(all, find_codec(name)) == all.end()) all.push_back(find_codec(name));
  return all;
}

/// 8-bit integers scaled in bf16 arithmetic: an ulp of the product is half a code.
bool coarse(const Codec& codec) {
  return codec.name().starts_with("int") && (codec.name().ends_with("-bf16") || codec.name().ends_with("-f16")) &&
         codec.name()[3] >= '6';
}

class Reround : public ::testing::TestWithParam<const Codec*> {};

TEST_P(Reround, FastPathsEqualTheDefinition) {
  const Codec& codec = *GetParam();
  const std::vector<std::byte> start = encoded(codec, values(1, DType::F32));
  const std::size_t bytes = codec.row_bytes(kCols);
  for (const DType dtype : {DType::F32, DType::BF16}) {
    const Tensor other = values(2, dtype), wide = values(2, DType::F32);
    std::vector<std::byte> expected = start;
    for (std::size_t r = 0; r < kRows; ++r)
      codec.reround(wide.view().span<float>().subspan(r * kCols, kCols), std::span(expected).subspan(r * bytes, bytes));
    for (const Isa isa : {Isa::Generic, Isa::Avx2, Isa::Avx512}) {
      if (isa > detected_isa()) continue;
      set_row_kernels(isa);
      std::vector<std::byte> found = start;
      codec.reround_rows(other, found);
      EXPECT_TRUE(found == expected) << isa_name(isa) << " " << dtype_name(dtype);
    }
    set_row_kernels(active_isa());
  }
}

TEST_P(Reround, WhatIsDecodedKeepsItsCodes) {
  const Codec& codec = *GetParam();
  if (coarse(codec)) return;  // such codes are given back only nearly: see Codec::reround
  const std::vector<std::byte> start = encoded(codec, values(1, DType::F32));
  Tensor decoded(DType::F32, {kRows, kCols});
  codec.decode_rows(start, decoded);
  std::vector<std::byte> found = start;
  codec.reround_rows(decoded, found);
  if (codec.name().starts_with("fp4")) {  // bitsandbytes' fp4 has two codes of value 0: values are given back
    Tensor again(DType::F32, {kRows, kCols});
    codec.decode_rows(found, again);
    EXPECT_TRUE(std::ranges::equal(again.view().span<float>(), decoded.view().span<float>()));
    return;
  }
  EXPECT_TRUE(found == start);
  // Parameters stay, whatever was rounded in between.
  codec.reround_rows(values(2, DType::F32), found);
  EXPECT_FALSE(found == start);
  codec.reround_rows(decoded, found);
  EXPECT_TRUE(found == start);
}

INSTANTIATE_TEST_SUITE_P(Codecs, Reround, ::testing::ValuesIn(encoding_codecs()), [](const auto& test) {
  std::string name(test.param->name());
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
});

TEST(Searches, AreTheFitsOfKQuantsAndIq4) {
  for (const char* name : {"q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs"})
    EXPECT_TRUE(find_codec(name)->searches()) << name;
  for (const char* name : {"q4_0", "q8_0", "int4-sym-g32", "nf4", "nvfp4", "mxfp4"})
    EXPECT_FALSE(find_codec(name)->searches()) << name;
}

}  // namespace
}  // namespace temper::quant
