// What stands in where blocks do not divide rows: by format, and by scheme.
#include "quant/fallback.h"

#include <gtest/gtest.h>

#include "quant/scheme.h"

namespace temper::quant {
namespace {

std::string_view fallback(std::string_view codec, std::int64_t cols) {
  return fallback_for(*find_codec(codec), cols)->name();
}

TEST(Fallback, IsTheLargestSmallerGroupThatDividesTheRow) {
  EXPECT_EQ(fallback("int4-tinygemm-g128-bf16", 576), "int4-tinygemm-g64-bf16");
  EXPECT_EQ(fallback("int4-tinygemm-g128-bf16", 1536), "int4-tinygemm-g128-bf16");  // it fits
  EXPECT_EQ(fallback("int8-asym-g256", 640), "int8-asym-g128");
  EXPECT_EQ(fallback("int3-sym-g256-f16", 96), "int3-sym-g32-f16");
  EXPECT_EQ(fallback("int4-mslk-g64-bf16", 96), "int4-mslk-g32-bf16");
  EXPECT_EQ(fallback("int4-ctsym-g128", 80), "int4-ctsym-g128");  // none does
  EXPECT_EQ(fallback("int4-sym-g32", 80), "int4-sym-g32");
}

TEST(Fallback, OfOtherFormatsIsLlamaCppsOrNone) {
  EXPECT_EQ(fallback("q4_k", 576), "q5_0");
  EXPECT_EQ(fallback("q4_k", 512), "q4_k");
  EXPECT_EQ(fallback("iq4_xs", 96), "iq4_nl");
  for (const char* fixed : {"nf4", "nvfp4", "mxfp4", "fp8-e4m3-ct-b128", "fp8-e4m3-ct-g128", "q4_0"})
    EXPECT_EQ(fallback(fixed, 600), fixed);
}

TEST(Fallback, OfASchemeTellsWhatWasMeant) {
  TensorPlace place;
  place.cols = 576;
  const Codec* meant = find_codec("int4-tinygemm-g128-bf16");
  EXPECT_EQ(scheme("int4").held(place).codec, find_codec("int4-tinygemm-g64-bf16"));
  EXPECT_EQ(scheme("int4").held(place).meant, meant);
  EXPECT_EQ(scheme("int4-g64").held(place).codec, scheme("int4-g64").held(place).meant);
  EXPECT_EQ(scheme("fp8-int4").codec_for(place), find_codec("int4-mslk-g64-bf16"));
  EXPECT_EQ(scheme("w4a16").codec_for(place), find_codec("int4-ctsym-g64-bf16"));
  EXPECT_EQ(scheme("none; q_proj: int8-sym-g256").codec_for(place), nullptr);
  EXPECT_EQ(scheme("none; linear: int8-sym-g256").codec_for(place), find_codec("int8-sym-g64"));
  EXPECT_EQ(scheme("int4").codec_for({}), meant) << "rows that are not known";
  // Files with one group size for a model.
  for (const char* name : {"int4-gptq", "int4-awq"}) EXPECT_FALSE(scheme(name).codec_for(place)->fits(576)) << name;
}

}  // namespace
}  // namespace temper::quant
