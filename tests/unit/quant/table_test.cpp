// The tables of codecs and schemes, sizes, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "quant/scheme.h"

namespace temper::quant {
namespace {

TEST(Codecs, NamesAreUniqueAndFound) {
  std::set<std::string_view> names;
  for (const Codec* codec : codecs()) {
    EXPECT_TRUE(names.insert(codec->name()).second) << codec->name();
    EXPECT_EQ(find_codec(codec->name()), codec);
  }
  EXPECT_EQ(find_codec("q4"), nullptr);
  // Others of the integer formats are made when asked for.
  const Codec* made = find_codec("int5-asym-g64-f16");
  ASSERT_NE(made, nullptr);
  EXPECT_EQ(find_codec("int5-asym-g64-f16"), made);
  EXPECT_EQ(find_codec("int5-asym-g63-f16"), nullptr);
}

TEST(Codecs, OnlyBlocksOfGgufHaveItsTypes) {
  for (const Codec* codec : codecs()) {
    const std::string_view type = gguf_type(*codec);
    EXPECT_TRUE(type.empty() || gguf_codec(type) == codec) << codec->name();
  }
  for (const char* name : {"q4_0", "q4_k", "iq4_nl", "tq2_0"}) EXPECT_EQ(gguf_type(*find_codec(name)), name);
  EXPECT_EQ(gguf_type(*find_codec("gguf-mxfp4")), "mxfp4");
  for (const char* name : {"int3-sym-g32", "int4-asym-g64-f16", "fp8-e4m3", "nf4", "nf4-dq", "mxfp4", "nvfp4"})
    EXPECT_EQ(gguf_type(*find_codec(name)), "") << name;
}

TEST(Codecs, BitsPerWeight) {
  const auto bits = [](const char* name) { return find_codec(name)->bits_per_weight(1024); };
  EXPECT_EQ(bits("int4-sym-g32"), 5.0);
  EXPECT_EQ(bits("int4-sym-g64"), 4.5);
  EXPECT_EQ(bits("int4-sym-g128"), 4.25);
  EXPECT_EQ(bits("int8-sym"), 8 + 32.0 / 1024);
  EXPECT_EQ(bits("int8-sym-g128"), 8.25);
  EXPECT_EQ(bits("q4_0"), 4.5);
  EXPECT_EQ(bits("q8_0"), 8.5);
  EXPECT_EQ(bits("q4_1"), 5.0);
  EXPECT_EQ(bits("q5_0"), 5.5);
  EXPECT_EQ(bits("q5_1"), 6.0);
  EXPECT_EQ(bits("q4_k"), 4.5);
  EXPECT_EQ(bits("q5_k"), 5.5);
  EXPECT_EQ(bits("q6_k"), 6.5625);
  EXPECT_EQ(bits("int3-sym-g32"), 4.0);
  EXPECT_EQ(bits("int4-tinygemm-g128-bf16"), 4.25);
  EXPECT_EQ(bits("int4-asym-g32-bf16"), 4.75);
  EXPECT_EQ(bits("mxfp4"), 4.25);
  EXPECT_EQ(bits("mxfp6-e2m3"), 6.25);
  EXPECT_EQ(bits("nvfp4"), 4.5);  // a row repeats the tensor's scale: not counted
  EXPECT_EQ(bits("fp8-e4m3-tensor"), 8.0);
  EXPECT_EQ(bits("nf4"), 4.5);
  EXPECT_EQ(bits("nf4-dq"), 4.125);
}

TEST(Codecs, ThatFitARow) {
  const auto names = [](std::int64_t cols) {
    std::vector<std::string> found;
    for (const Codec* codec : codecs_that_fit(cols)) found.emplace_back(codec->name());
    return found;
  };
  const auto has = [&](std::int64_t cols, const char* name) { return std::ranges::count(names(cols), name) == 1; };
  for (const char* name : {"int8-sym", "fp8-e4m3", "nvfp4"}) EXPECT_TRUE(has(48, name)) << name;
  for (const char* name : {"int4-sym-g32", "q4_0", "nf4", "mxfp4"}) EXPECT_FALSE(has(48, name)) << name;
  for (const char* name : {"int4-sym-g32", "int4-sym-g64", "int8-sym", "q4_0", "q5_1", "nf4-dq", "mxfp4"})
    EXPECT_TRUE(has(576, name)) << name;
  for (const char* name : {"int4-sym-g128", "q4_k", "fp8-e4m3-b128"}) EXPECT_FALSE(has(576, name)) << name;
  EXPECT_TRUE(names(0).empty());
}

TEST(Codecs, RefuseWhatDoesNotFit) {
  std::vector<float> values(64), params(2);
  std::vector<std::byte> bytes(36);
  const Codec& q4_0 = *find_codec("q4_0");
  EXPECT_THROW(q4_0.row_bytes(48), LogicError);
  EXPECT_THROW(q4_0.row_bytes(0), LogicError);
  EXPECT_THROW(q4_0.row_bytes(-32), LogicError);
  EXPECT_THROW(q4_0.fit(values, std::span(params).first(1)), LogicError);
  EXPECT_THROW(q4_0.round(values, params, std::span(bytes).first(35)), LogicError);
  EXPECT_THROW(q4_0.decode(std::span(bytes).first(18), values), LogicError);
  EXPECT_THROW(q4_0.encode_rows(TensorView(values.data(), DType::F32, {2, 32}), std::span(bytes).first(18)), LogicError);
  EXPECT_THROW(q4_0.decode_rows(bytes, TensorView(values.data(), DType::F16, {2, 32})), LogicError);
  EXPECT_THROW(q4_0.stats(bytes, std::span(bytes).first(18), 2, 32), LogicError);
}

TEST(Codecs, ReadOnlyOnesRefuseToWrite) {
  std::vector<float> values(256), params(8);
  std::vector<std::byte> bytes(1024);
  for (const Codec* codec : codecs()) {
    if (codec->encodes()) continue;
    EXPECT_THROW(codec->fit(values, params), Unsupported);
    EXPECT_THROW(codec->round(values, params, bytes), Unsupported);
    EXPECT_THROW(codec->params_per_row(256), Unsupported);
    EXPECT_THROW(codec->encode_rows(TensorView(values.data(), DType::F32, {1, 256}), bytes), Unsupported);
    EXPECT_THROW(codec->stats(bytes, bytes, 1, 256), Unsupported);
    EXPECT_THROW(codec->decode(bytes, values), LogicError);
  }
}

TEST(Codecs, ReadOnlyOnesRoundToBf16) {
  for (const Codec* codec : codecs()) {
    if (codec->encodes()) continue;
    std::vector<std::byte> bytes(codec->row_bytes(256));
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 37 % 59);
    std::vector<float> values(256);
    Tensor out(DType::BF16, {1, 256});
    codec->decode(bytes, values);
    codec->decode_rows(bytes, out);
    for (std::size_t i = 0; i < 256; ++i)
      EXPECT_EQ(out.span<bf16>()[i].bits, to_bf16(values[i]).bits) << codec->name() << ": " << i;
  }
}

TEST(Schemes, TensorsByRole) {
  const Scheme& int4 = scheme("int4-sym-g32");
  EXPECT_EQ(int4.codec_for(Role::Linear), find_codec("int4-sym-g32"));
  EXPECT_EQ(int4.codec_for(Role::Embedding), nullptr);
  EXPECT_EQ(int4.codec_for(Role::Head), nullptr);
  EXPECT_TRUE(int4.wires.empty());
  const Scheme& q4_0 = scheme("q4_0");
  EXPECT_EQ(q4_0.codec_for(Role::Linear), find_codec("q4_0"));
  EXPECT_EQ(q4_0.codec_for(Role::Embedding), find_codec("q8_0"));
  EXPECT_EQ(q4_0.codec_for(Role::Head), find_codec("q8_0"));
  EXPECT_EQ(q4_0.codec_for(Role::Norm), nullptr);
  EXPECT_EQ(q4_0.wires, std::vector<std::string>{"gguf:q4_0"});
  for (const Scheme& each : schemes()) EXPECT_NE(each.linear, nullptr) << each.name;
  const Scheme& phone = scheme("phone-deployment");
  EXPECT_EQ(phone.name, "int8-int4");
  EXPECT_EQ(phone.codec_for(Role::Linear), find_codec("int4-sym-g32-bf16"));
  EXPECT_EQ(phone.codec_for(Role::Embedding), find_codec("int8-sym-bf16"));
  const Scheme& own = scheme("int5-asym-g64-bf16");  // no row of the table
  EXPECT_EQ(own.name, "int5-asym-g64-bf16");
  EXPECT_EQ(own.linear, find_codec("int5-asym-g64-bf16"));
  EXPECT_EQ(own.codec_for(Role::Head), nullptr);
  EXPECT_EQ(&scheme("int5-asym-g64-bf16"), &own);
  std::set<std::string> names;
  for (const Scheme& each : schemes()) EXPECT_TRUE(names.insert(each.name).second) << each.name;
  EXPECT_EQ(&scheme("q4_k"), &scheme("q4_k_m"));
}

TEST(Schemes, UnknownNameSuggestsTheNearest) {
  try {
    scheme("int4-sym-32");
    FAIL();
  } catch (const BadRecipe& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean \"int4-sym-g32\""), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("q8_0"), std::string::npos) << error.what();
  }
  EXPECT_THROW(scheme("none"), BadRecipe);
}

}  // namespace
}  // namespace temper::quant
