// One's own schemes: rules over tensors, their names, and what is refused.
#include "quant/scheme_rules.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "quant/scheme.h"

namespace temper::quant {
namespace {

TensorPlace projection(Projection p, int layer, std::string name, std::int64_t cols = 576) {
  return {Role::Linear, p, layer, 30, cols, true, 3, std::move(name)};
}
const TensorPlace kDown3 = projection(Projection::Down, 3, "model.layers.3.mlp.down_proj.weight", 1536);
const TensorPlace kQuery7 = projection(Projection::Q, 7, "model.layers.7.self_attn.q_proj.weight");
const TensorPlace kTied{Role::Embedding, Projection::None, -1, 30, 576, true, 3, "model.embed_tokens.weight"};
const TensorPlace kUntied{Role::Embedding, Projection::None, -1, 30, 576, false, 3, "model.embed_tokens.weight"};
const TensorPlace kHead{Role::Head, Projection::None, -1, 30, 576, false, 3, "lm_head.weight"};
const TensorPlace kNorm{Role::Norm, Projection::None, 3, 30, 576, true, 3, "model.layers.3.input_layernorm.weight"};

bool selects(const char* selector, const TensorPlace& place) {
  return TensorRule::parse(std::string(selector) + ": q8_0").selects(place);
}

TEST(TensorRules, Select) {
  EXPECT_TRUE(selects("linear", kDown3));
  EXPECT_FALSE(selects("linear", kHead));
  EXPECT_TRUE(selects("down_proj", kDown3));
  EXPECT_TRUE(selects("q_proj,down_proj", kDown3));
  EXPECT_FALSE(selects("q_proj,k_proj", kDown3));
  EXPECT_TRUE(selects("layers 0-3", kDown3));
  EXPECT_TRUE(selects("layers 0,3", kDown3));
  EXPECT_TRUE(selects("layers 2-", kDown3));
  EXPECT_FALSE(selects("layers 0-2,4-", kDown3));
  EXPECT_TRUE(selects("layers 3 down_proj", kDown3));
  EXPECT_FALSE(selects("layers 3 down_proj", kQuery7));
  EXPECT_TRUE(selects("*.down_proj", kDown3));
  EXPECT_TRUE(selects("model.layers.?.mlp.*", kDown3));
  EXPECT_FALSE(selects("model.layers.??.mlp.*", kDown3));
  EXPECT_TRUE(selects("lm_head.weight", kHead));
  for (const char* all : {"*", "layers 0-", "*norm*"}) EXPECT_FALSE(selects(all, kNorm)) << all;
  EXPECT_TRUE(selects("head", kHead));
  EXPECT_TRUE(selects("lm_head", kTied));
  EXPECT_FALSE(selects("head", kUntied));
  EXPECT_TRUE(selects("embedding,head", kUntied));
}

TEST(TensorRules, TheLastOneDecides) {
  const Scheme& own = scheme("int4-sym-g32/int8-asym;embedding, : int8-sym ; layers 0-3: q8_0;  *.down_proj: nf4/none");
  EXPECT_EQ(own.name, "int4-sym-g32/int8-asym; embedding: int8-sym; layers 0-3: q8_0; *.down_proj: nf4/none");
  EXPECT_EQ(&scheme(own.name), &own);  // found again by its name
  EXPECT_EQ(own.codec_for(kDown3), find_codec("nf4"));
  EXPECT_EQ(own.input_codec_for(kDown3), nullptr);
  EXPECT_EQ(own.codec_for(kQuery7), find_codec("int4-sym-g32"));
  EXPECT_EQ(own.input_codec_for(kQuery7), find_codec("int8-asym"));
  EXPECT_EQ(own.codec_for(kTied), find_codec("int8-sym"));
  EXPECT_EQ(own.input_codec_for(kTied), find_codec("int8-asym"));
  EXPECT_EQ(own.codec_for(kUntied), find_codec("int8-sym"));
  EXPECT_EQ(own.input_codec_for(kUntied), nullptr);  // looked up, not multiplied
  EXPECT_EQ(own.codec_for(kHead), nullptr);
  EXPECT_EQ(own.codec_for(kNorm), nullptr);
}

TEST(TensorRules, OverMixesAndOverNothing) {
  const Scheme& mix = scheme("q4_k_m; down_proj: q6_k; head: none");
  EXPECT_EQ(mix.codec_for(kDown3), find_codec("q6_k"));                            // 1536 = 6 · 256
  EXPECT_EQ(scheme("q4_0; q_proj: q4_k").codec_for(kQuery7), find_codec("q5_0"));  // 576: what llama.cpp takes
  EXPECT_EQ(mix.codec_for(kTied), nullptr);
  EXPECT_EQ(mix.codec_for(kQuery7), scheme("q4_k_m").codec_for(kQuery7));
  const Scheme& one = scheme("none; *.q_proj: int4-sym-g32/fp8-e4m3");
  EXPECT_EQ(one.codec_for(kDown3), nullptr);
  EXPECT_EQ(one.input_codec_for(kDown3), nullptr);
  EXPECT_EQ(one.input_codec_for(kQuery7), find_codec("fp8-e4m3"));
  const Scheme& weights_only = scheme("int8-int4/none");
  EXPECT_EQ(weights_only.codec_for(kQuery7), find_codec("int4-sym-g32-bf16"));
  EXPECT_EQ(weights_only.input_codec_for(kQuery7), nullptr);
}

TEST(TensorRules, Refusals) {
  const auto message = [](const char* text) -> std::string {
    try {
      scheme(text);
    } catch (const BadRecipe& error) {
      return error.what();
    }
    return "";
  };
  const std::pair<const char*, const char*> cases[] = {{"int4-sym-g32; down_prj: q8_0", "did you mean \"down_proj\""},
                                                       {"int4-sym-g32; down_proj: q8_1", "did you mean \"q8_0\""},
                                                       {"int4-sym-g32/int8-asim", "did you mean \"int8-asym\""},
                                                       {"int4-sym-32/int8-asym", "did you mean \"int4-sym-g32\""},
                                                       {"int4-sym-g32; down_proj", "expected SELECTOR: FORMAT"},
                                                       {"int4-sym-g32; layers: q8_0", "before the colon"},
                                                       {"int4-sym-g32; layers 3-1: q8_0", "no range of layers"},
                                                       {"int4-sym-g32; : q8_0", "before the colon"},
                                                       {"none/int8-asym", "nothing is quantized"},
                                                       {"int8-sym; layers 0-3: none/fp8-e4m3", "leave \"/fp8-e4m3\" out"},
                                                       {"q4_0; q_proj: iq2_xs", "unknown format"}};
  for (const auto& [text, expected] : cases) EXPECT_NE(message(text).find(expected), std::string::npos) << message(text);
}

TEST(Schemes, RoundActivationsAsTheirRuntimesDo) {
  const auto input = [](const char* name) {
    const Codec* codec = scheme(name).input_codec_for(kQuery7);
    return std::string(codec ? codec->name() : "");
  };
  for (const char* weight_only : {"int4", "int8", "cactus", "nf4", "q4_0", "q4_k_m", "int4-sym-g32"})
    EXPECT_EQ(input(weight_only), "") << weight_only;
  EXPECT_EQ(input("int8-int4"), "int8-asym");
  EXPECT_EQ(input("phone-deployment"), "int8-asym");
  EXPECT_EQ(input("int8-int8"), "int8-symeps");
  EXPECT_EQ(input("fp8-fp8"), "fp8-e4m3");
  EXPECT_EQ(input("fp8-int4"), "fp8-e4m3");
  EXPECT_EQ(input("mxfp8"), "mxfp8-e4m3");
  EXPECT_EQ(input("mxfp4"), "mxfp4");
  EXPECT_EQ(input("nvfp4"), "nvfp4");
}

}  // namespace
}  // namespace temper::quant
