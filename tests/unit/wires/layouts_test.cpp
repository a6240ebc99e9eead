// compressed-tensors, bitsandbytes, GPTQ and AWQ: round trips, refusals, and files that are wrong.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "quant/activations.h"
#include "wire_harness.h"
#include "wires/formats.h"
#include "wires/packing.h"

namespace temper::wires {
namespace {

TEST(Packing, BitsAreAStreamLowestFirst) {
  for (int bits = 1; bits <= 8; ++bits)
    for (const std::int64_t cols : {1, 7, 32, 45}) {
      const std::int64_t rows = 3;
      std::mt19937 random(static_cast<unsigned>(bits));
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * cols));
      for (auto& code : codes) code = static_cast<std::uint8_t>(random() & ((1u << bits) - 1));
      for (const Unit unit : {Unit::Byte, Unit::Word}) {
        const std::vector<std::byte> packed = pack_bits(codes, rows, cols, bits, unit);
        const std::size_t row = packed_row_bytes(cols, bits, unit);
        ASSERT_EQ(packed.size(), rows * row);
        ASSERT_EQ(row % static_cast<std::size_t>(unit), 0u);
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t bit = 0; bit < cols * bits; ++bit) {
            const int found = static_cast<int>(packed[r * row + bit / 8]) >> (bit % 8) & 1;
            ASSERT_EQ(found, codes[r * cols + bit / bits] >> (bit % bits) & 1) << bits << " bits, bit " << bit;
          }
        EXPECT_EQ(unpack_bits(packed, rows, cols, bits, unit), codes);
      }
    }
}

Matrix f16(Matrix matrix) {
  matrix.dtype = DType::F16;
  return matrix;
}

TEST(CompressedTensors, RoundTrips) {
  for (const char* codec : {"int4-ctsym-g32-bf16", "int4-ctsym-g128-bf16", "int4-ctasym-g64-bf16", "int4-ctsym-bf16",
                            "int8-ctsym-g128-bf16", "int3-ctsym-g32-bf16", "int2-ctasym-g32-bf16", "nvfp4-ct", "mxfp4-even",
                            "mxfp6-e2m3-even", "mxfp8-e4m3-ct", "fp8-e4m3-ct-bf16", "fp8-e4m3-ct-tensor-bf16"})
    for (const std::int64_t rows : {1, 20, 200})
      expect_round_trip(compressed_tensors_wire(), matrix_of(codec, "", rows, 256));
  expect_round_trip(compressed_tensors_wire(), f16(matrix_of("int4-ctasym-g64-f16", "", 20, 256)));
  expect_round_trip(compressed_tensors_wire(), matrix_of("int4-ctsym-bf16", "", 5, 100));  // words padded
  for (const std::int64_t rows : {1, 128, 300})
    expect_round_trip(compressed_tensors_wire(), matrix_of("fp8-e4m3-ct-b128-bf16", "fp8-e4m3-ct-g128", rows, 256));
  expect_round_trip(compressed_tensors_wire(), matrix_of("int8-ctsym-bf16", "int8-ctsym", 20, 96));
  expect_round_trip(compressed_tensors_wire(), matrix_of("int8-ctasym-bf16", "int8-ctasym", 20, 96));
  expect_round_trip(compressed_tensors_wire(), matrix_of("int4-ctsym-g32-bf16", "fp8-e4m3-ct", 20, 96));
  expect_round_trip(compressed_tensors_wire(), matrix_of("fp8-e4m3-ct-bf16", "fp8-e4m3-ct", 20, 96));
  expect_round_trip(compressed_tensors_wire(), matrix_of("mxfp4-even", "mxfp4-even", 20, 96));
  expect_round_trip(compressed_tensors_wire(), matrix_of("mxfp8-e4m3-ct", "mxfp8-e4m3-ct", 20, 96));
}

TEST(CompressedTensors, StaticRangesRoundTrip) {
  const auto with_range = [](Matrix matrix, float scale, int zero = 0) {
    matrix.input_range = {scale, zero};
    return matrix;
  };
  expect_round_trip(compressed_tensors_wire(),
                    with_range(matrix_of("int8-ctsym-bf16", "int8-static-sym", 20, 96), 0.015625f));
  expect_round_trip(compressed_tensors_wire(),
                    with_range(matrix_of("int8-ctsym-bf16", "int8-static-asym", 20, 96), 0.015625f, -17));
  expect_round_trip(compressed_tensors_wire(),
                    with_range(matrix_of("fp8-e4m3-ct-tensor-bf16", "fp8-static", 20, 96), 0.125f));
  expect_round_trip(compressed_tensors_wire(), with_range(matrix_of("nvfp4-ct", "nvfp4-static", 20, 96), 1344.0f));
  Matrix outputs = with_range(matrix_of("int8-ctsym-bf16", "int8-static-sym", 20, 96), 0.5f);
  outputs.output = quant::find_codec("int8-static-asym");
  outputs.output_range = {0.25f, 9};
  expect_round_trip(compressed_tensors_wire(), outputs);
  EXPECT_EQ(refusal(compressed_tensors_wire(), outputs), "");
  for (const Wire* wire : wires())
    if (wire != &compressed_tensors_wire()) {
      EXPECT_NE(refusal(*wire, outputs).find("outputs"), std::string::npos) << wire->name();
      EXPECT_NE(refusal(*wire, matrix_of("int8-symeps-bf16", "int8-static-sym", 20, 96)), "") << wire->name();
    }
  // Without a range there is nothing to write.
  EXPECT_THROW(compressed_tensors_wire().pack(matrix_of("int8-ctsym-bf16", "int8-static-sym", 8, 64),
                                              random_encoded(*quant::find_codec("int8-ctsym-bf16"), 8, 64)),
               LogicError);
}

TEST(CompressedTensors, StaticRangesAreChecked) {
  Matrix matrix = matrix_of("int8-ctsym-bf16", "int8-static-asym", 8, 64);
  matrix.input_range = {0.5f, 3};
  const nlohmann::json config = compressed_tensors_wire().config(std::span(&matrix, 1));
  const auto describe_with = [&](auto&& spoil) {
    PackedTensors packed;
    packed.add(compressed_tensors_wire().pack(matrix, random_encoded(*matrix.codec, 8, 64)));
    spoil(packed.tensors());
    Matrix found = matrix;
    compressed_tensors_wire().describe(found, config, {}, packed.find());
  };
  const std::string scale = "model.layers.0.mlp.up_proj.input_scale", zero = "model.layers.0.mlp.up_proj.input_zero_point";
  const std::vector<std::byte> nothing(2);
  EXPECT_NO_THROW(describe_with([](auto&) {}));
  EXPECT_THROW(describe_with([&](auto& tensors) { tensors.erase(scale); }), BadFile);
  EXPECT_THROW(describe_with([&](auto& tensors) { tensors.erase(zero); }), BadFile);
  EXPECT_THROW(describe_with([&](auto& tensors) { tensors.find(scale)->second.data = nothing; }), BadFile);  // 0
  EXPECT_THROW(describe_with([&](auto& tensors) { tensors.find(scale)->second.dtype = DType::I16; }), BadFile);
  EXPECT_THROW(describe_with([&](auto& tensors) { tensors.find(scale)->second.shape = Shape{2}; }), BadFile);
}

TEST(CompressedTensors, Refusals) {
  const auto why = [](const Matrix& matrix) { return compressed_tensors_wire().refusal(matrix); };
  EXPECT_EQ(why(matrix_of("int4-sym-g32-bf16", "int8-sym", 8, 64)), "");  // torchao's rounding, the same storage
  EXPECT_NE(why(matrix_of("int4-ctsym-g32-bf16", "", 8, 64, quant::Role::Embedding)).find("embedding"), std::string::npos);
  EXPECT_NE(why(matrix_of("int4-ctsym-g32", "", 8, 64)).find("F32"), std::string::npos);
  EXPECT_NE(why(matrix_of("int4-tinygemm-g32-bf16", "", 8, 64)).find("no format"), std::string::npos);
  EXPECT_NE(why(matrix_of("nvfp4", "", 8, 64)).find("nvfp4-ct"), std::string::npos);
  EXPECT_NE(why(matrix_of("q4_0", "", 8, 64)).find("no format"), std::string::npos);
  EXPECT_NE(why(matrix_of("nvfp4-ct", "nvfp4-local", 8, 64)).find("input_global_scale"), std::string::npos);
  EXPECT_NE(why(matrix_of("fp8-e4m3-ct-bf16", "int8-ctsym", 8, 64)).find("activations"), std::string::npos);
}

TEST(CompressedTensors, SeveralFormatsAreGroupsByName) {
  std::vector<Matrix> matrices = {matrix_of("int4-ctsym-g32-bf16", "", 8, 64),
                                  matrix_of("int8-ctsym-bf16", "int8-ctsym", 8, 64),
                                  matrix_of("int4-ctsym-g32-bf16", "", 8, 64)};
  matrices[1].name = "model.layers.1.mlp.up_proj.weight";
  matrices[2].name = "model.layers.2.mlp.up_proj.weight";
  matrices[2].codec = nullptr;
  const nlohmann::json config = compressed_tensors_wire().config(matrices);
  EXPECT_EQ(config["format"], "mixed-precision");
  EXPECT_EQ(config["ignore"], nlohmann::json({"model.layers.2.mlp.up_proj", "lm_head"}));
  PackedTensors packed;
  for (const Matrix& matrix : matrices)
    if (matrix.codec) packed.add(compressed_tensors_wire().pack(matrix, random_encoded(*matrix.codec, 8, 64)));
  for (const Matrix& matrix : matrices) {
    Matrix found = matrix;
    found.codec = found.input = nullptr;
    compressed_tensors_wire().describe(found, config, {}, packed.find());
    EXPECT_EQ(found.codec, matrix.codec);
    EXPECT_EQ(found.input, matrix.input);
  }
}

TEST(CompressedTensors, WhatItDoesNotReadIsNamed) {
  const Matrix matrix = matrix_of("int4-ctsym-g32-bf16", "", 8, 64);
  PackedTensors packed;
  packed.add(compressed_tensors_wire().pack(matrix, random_encoded(*matrix.codec, 8, 64)));
  const nlohmann::json good = compressed_tensors_wire().config(std::span(&matrix, 1));
  const auto describe = [&](const nlohmann::json& config) {
    Matrix found = matrix;
    compressed_tensors_wire().describe(found, config, {}, packed.find());
  };
  EXPECT_NO_THROW(describe(good));
  const auto changed = [&](const char* pointer, const nlohmann::json& value) {
    nlohmann::json config = good;
    config[nlohmann::json::json_pointer(pointer)] = value;
    return config;
  };
  EXPECT_THROW(describe(changed("/config_groups/group_0/weights/actorder", "group")), Unsupported);
  EXPECT_THROW(describe(changed("/config_groups/group_0/weights/group_size", 48)), Unsupported);
  EXPECT_THROW(describe(changed("/config_groups/group_0/weights/num_bits", 7)), Unsupported);
  EXPECT_THROW(describe(changed("/config_groups/group_0/weights/num_bits", "4")), BadFile);
  EXPECT_THROW(describe(changed("/config_groups/group_0/weights", nullptr)), BadFile);
  EXPECT_THROW(describe(changed("/config_groups", nlohmann::json::object())), BadFile);
  EXPECT_THROW(describe(changed("/transform_config/config_groups", {{"u", 1}})), Unsupported);
  EXPECT_THROW(describe(changed("/config_groups/group_0/input_activations",
                                {{"num_bits", 8}, {"type", "float"}, {"strategy", "tensor"}, {"dynamic", true}})),
               Unsupported);
  EXPECT_THROW(describe(changed("/config_groups/group_0/input_activations",
                                {{"num_bits", 8}, {"type", "float"}, {"strategy", "tensor"}, {"dynamic", false}})),
               BadFile);  // no input_scale
  EXPECT_THROW(describe(changed("/config_groups/group_0/output_activations",
                                {{"num_bits", 8}, {"type", "int"}, {"strategy", "token"}, {"dynamic", true}})),
               Unsupported);
  EXPECT_THROW(describe(nlohmann::json::object()), BadFile);
}

TEST(Bitsandbytes, RoundTrips) {
  for (const char* codec : {"nf4", "fp4", "nf4-dq", "fp4-dq"})
    for (const auto& [rows, cols] : {std::pair{1, 64}, {40, 576}, {7, 64 * 300}, {300, 64}})
      expect_round_trip(bitsandbytes_wire(), matrix_of(codec, "", rows, cols));
}

/// Outliers apart are a matter of LLM.int8's own runtime; its folders are only read.
TEST(Wires, NoneCarriesActivationsOfLlmInt8) {
  for (const Wire* wire : wires())
    for (const char* codec : {"int8-sym-bf16", "int8-symeps-bf16", "int8-ctsym-bf16", "int4-sym-g32-bf16", "nf4",
                              "fp8-e4m3-bf16", "int4-ctsym-g32-f16"}) {
      Matrix matrix = matrix_of(codec, "", 64, 64);
      if (std::string_view(codec).ends_with("f16") && !std::string_view(codec).ends_with("bf16")) matrix = f16(matrix);
      matrix.input = &quant::activation_codec("llm-int8");
      EXPECT_NE(refusal(*wire, matrix), "") << wire->name() << " " << codec;
    }
  Matrix nf4 = matrix_of("nf4", "", 8, 64), int8 = matrix_of("int8-symeps-bf16", "", 8, 64);
  nf4.input = int8.input = &quant::activation_codec("llm-int8");
  EXPECT_NE(bitsandbytes_wire().refusal(nf4).find("rounds no activations"), std::string::npos);
  EXPECT_NE(find_wire("torchao")->refusal(int8).find("llm-int8"), std::string::npos);
}

TEST(Bitsandbytes, Refusals) {
  EXPECT_NE(bitsandbytes_wire().refusal(matrix_of("int8-sym", "", 8, 64)).find("no format"), std::string::npos);
  EXPECT_NE(bitsandbytes_wire().refusal(matrix_of("nf4", "", 8, 64, quant::Role::Head)).find("head"), std::string::npos);
  std::vector<Matrix> mixed = {matrix_of("nf4", "", 8, 64), matrix_of("fp4", "", 8, 64)};
  EXPECT_THROW(bitsandbytes_wire().config(mixed), Unsupported);
}

TEST(Gptq, RoundTrips) {
  for (const int bits : {2, 3, 4, 8})
    for (const char* group : {"-g32", "-g64", "-g128", ""}) {
      expect_round_trip(gptq_wire(), f16(matrix_of(fmt::format("int{}-ctsym{}-f16", bits, group), "", 64, 256)));
      expect_round_trip(gptq_v2_wire(), f16(matrix_of(fmt::format("int{}-ctasym{}-f16", bits, group), "", 64, 256)));
    }
}

TEST(Gptq, Refusals) {
  EXPECT_NE(gptq_wire().refusal(matrix_of("int4-ctasym-g32-f16", "", 64, 64)).find("gptq-v2"), std::string::npos);
  EXPECT_NE(gptq_wire().refusal(matrix_of("int4-sym-g32-bf16", "", 64, 64)).find("int4-ctsym-g32-f16"), std::string::npos);
  EXPECT_NE(gptq_wire().refusal(matrix_of("int3-ctsym-g32-f16", "", 20, 64)).find("words"), std::string::npos);
  EXPECT_NE(gptq_wire().refusal(matrix_of("int6-ctsym-g32-f16", "", 64, 64)).find("no format"), std::string::npos);
  EXPECT_NE(awq_wire().refusal(matrix_of("int4-ctasym-g32-f16", "", 60, 64)).find("eight"), std::string::npos);
  EXPECT_NE(awq_wire().refusal(matrix_of("int3-ctasym-g32-f16", "", 64, 64)).find("no format"), std::string::npos);
}

TEST(Gptq, InputsInAnOrderOfTheirOwnAreRefused) {
  Matrix matrix = matrix_of("int4-ctsym-g32-f16", "", 64, 64);
  std::vector<Part> parts = gptq_wire().pack(matrix, random_encoded(*matrix.codec, 64, 64));
  for (Part& part : parts)
    if (part.entry.name.ends_with("g_idx")) part.bytes[0] = std::byte{1};  // input 0 in group 1
  PackedTensors packed;
  packed.add(std::move(parts));
  EXPECT_THROW(gptq_wire().describe(matrix, gptq_wire().config(std::span(&matrix, 1)), {}, packed.find()), Unsupported);
}

TEST(Gptq, PlainModulesAreLeftOutByName) {
  std::vector<Matrix> matrices = {matrix_of("int4-ctsym-g32-f16", "", 64, 64), matrix_of("int4-ctsym-g32-f16", "", 64, 64)};
  matrices[1].codec = nullptr;
  EXPECT_TRUE(gptq_wire().config(matrices)["dynamic"].contains("-:^model\\.layers\\.0\\.mlp\\.up_proj$"));
  EXPECT_EQ(awq_wire().config(matrices)["modules_to_not_convert"],
            nlohmann::json({"model.layers.0.mlp.up_proj", "lm_head"}));
}

TEST(Awq, RoundTrips) {
  for (const char* group : {"-g32", "-g64", "-g128", ""})
    expect_round_trip(awq_wire(), f16(matrix_of(fmt::format("int4-ctasym{}-f16", group), "", 64, 256)));
  expect_round_trip(awq_wire(), f16(matrix_of("int4-ctsym-g128-f16", "", 8, 128)));
}

/// Every stored tensor missing, of another dtype, or of another shape: an error that names it, never a read beyond its
/// bytes.
TEST(Layouts, SpoiltTensorsAreRefused) {
  const std::pair<const Wire*, Matrix> all[] = {
      {&compressed_tensors_wire(), matrix_of("int4-ctasym-g32-bf16", "", 64, 64)},
      {&compressed_tensors_wire(), matrix_of("nvfp4-ct", "", 64, 64)},
      {&compressed_tensors_wire(), matrix_of("int8-ctsym-bf16", "int8-ctsym", 64, 64)},
      {&bitsandbytes_wire(), matrix_of("nf4-dq", "", 64, 64)},
      {&gptq_wire(), matrix_of("int4-ctsym-g32-f16", "", 64, 64)},
      {&gptq_v2_wire(), matrix_of("int3-ctasym-g32-f16", "", 64, 64)},
      {&awq_wire(), matrix_of("int4-ctasym-g32-f16", "", 64, 64)}};
  for (const auto& [wire, matrix] : all) {
    const nlohmann::json config = wire->config(std::span(&matrix, 1));
    const std::vector<std::byte> encoded = random_encoded(*matrix.codec, 64, 64);
    for (const files::SafetensorsEntry& entry : wire->entries(matrix))
      for (int kind = 0; kind < 3; ++kind) {
        if (kind == 2 && entry.shape == Shape{1}) continue;
        PackedTensors packed;
        packed.add(wire->pack(matrix, encoded));
        files::SafetensorsTensor& tensor = packed.tensors().at(entry.name);
        if (kind == 1) tensor.dtype = DType::F64;
        if (kind == 2) {
          tensor.shape = {1};
          tensor.data = tensor.data.first(dtype_size(tensor.dtype));
        }
        if (kind == 0) packed.tensors().erase(entry.name);
        const auto read = [&] {
          Matrix found = matrix;
          found.codec = found.input = nullptr;
          wire->describe(found, config, {}, packed.find());
          if (!found.codec) throw BadFile("{}: plain", entry.name);  // so it looks where its first tensor is missing
          wire->unpack(found, packed.find());
        };
        if (kind == 0 && entry.name.ends_with("g_idx")) {
          EXPECT_NO_THROW(read());  // may be left out
          continue;
        }
        EXPECT_THROW(read(), Error) << wire->name() << " " << entry.name << ", kind " << kind;
      }
  }
}

}  // namespace
}  // namespace temper::wires
