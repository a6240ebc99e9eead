// Ways of quantizing by name, and those that a scheme is offered.
#include "ptq/way.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"

namespace temper::ptq {
namespace {

bool offers(const char* scheme, std::string_view way) {
  return std::ranges::count(ways_for(quant::scheme(scheme)), way, &Way::name) == 1;
}

TEST(WaysFor, SmoothQuantIsOfferedWhereActivationsAreRounded) {
  for (const char* scheme : {"int8-int8", "int4-sym-g32/int8-asym", "int4-sym-g32; head: int8-sym/int8-asym",
                             "none; down_proj: int8-sym/int8-sym"})
    for (const char* way : {"smoothquant", "smoothquant+gptq"}) EXPECT_TRUE(offers(scheme, way)) << scheme;
  for (const char* scheme : {"int4-sym-g32", "q4_k_m", "int4-sym-g32; head: int8-sym",
                             "int4-sym-g32; down_proj: int8-sym/none", "int8-sym; layers 0-3: none"})
    for (const char* way : {"smoothquant", "smoothquant+gptq"}) EXPECT_FALSE(offers(scheme, way)) << scheme;
}

TEST(WaysFor, OthersGoByTheFormatOfMostWeights) {
  for (const char* scheme : {"int4-sym-g32", "int4-sym-g128", "none; down_proj: int3-sym-g32"})
    EXPECT_TRUE(offers(scheme, "awq")) << scheme;
  for (const char* scheme : {"int8", "q8_0"}) EXPECT_FALSE(offers(scheme, "awq")) << scheme;
  EXPECT_TRUE(offers("q4_k_m", "importance"));
  EXPECT_FALSE(offers("int4-sym-g32", "importance"));
  for (const char* scheme : {"q4_0", "nf4", "int8-int8"})
    for (const char* way : {"rtn", "gptq"}) EXPECT_TRUE(offers(scheme, way)) << scheme;
}

TEST(WayOf, AnUnknownNameIsRefusedWithTheKnownOnes) {
  try {
    way_of("round");
    FAIL();
  } catch (const BadRecipe& error) {
    EXPECT_NE(std::string(error.what()).find("smoothquant+gptq"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace temper::ptq
