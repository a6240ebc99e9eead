// Linears as the packages that define the wires stored them (tools/oracles/make_wire_goldens.py): read to the values that
// the package decodes, and written to the same bytes.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "files/json.h"
#include "quant/activations.h"
#include "quant/scaled_codec.h"
#include "wires/wire.h"

namespace temper::wires {
namespace {

using files::Json;
using files::SafetensorsFile;

const SafetensorsFile& file_of(const std::string& wire) {
  static std::map<std::string, SafetensorsFile> files;
  const auto found = files.find(wire);
  if (found != files.end()) return found->second;
  return files.emplace(wire, SafetensorsFile(std::string(TEMPER_TEST_DATA) + "/wires/" + wire + ".safetensors"))
      .first->second;
}

struct Case {
  std::string file, name;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* file : {"compressed_tensors", "compressed_tensors_static", "bitsandbytes", "gptq", "awq"})
    for (const auto& [name, text] : file_of(file).metadata())
      if (name != "format" && name != "crossing") all.push_back({file, name});
  return all;
}

/// A case's matrix, described, and what it was described from.
struct Read {
  const SafetensorsFile& file;
  FindTensor find;
  Json config;
  Matrix matrix;

  explicit Read(const Case& of) : file(file_of(of.file)), find([this](std::string_view name) { return file.find(name); }) {
    const Json meta = files::parse_json(file.metadata().at(of.name), of.name);
    config = meta.at("config");
    matrix = {of.name + ".weight", quant::Role::Linear, meta.at("rows"), meta.at("cols")};
    if (!of.file.starts_with("compressed_tensors"))
      matrix.dtype = of.name == "nf4" || of.name.ends_with("dq") ? DType::BF16 : DType::F16;
    wire().describe(matrix, config, file.metadata(), find);
  }
  Read(const Read&) = delete;
  const Wire& wire() const { return wire_of(config, "config.json"); }
  std::vector<std::byte> encoded() const { return wire().unpack(matrix, find); }
};

float value_at(const files::SafetensorsTensor& tensor, std::size_t i) {
  std::uint16_t bits;
  float value;
  if (tensor.dtype == DType::F32) {
    std::memcpy(&value, tensor.data.data() + i * 4, 4);
    return value;
  }
  std::memcpy(&bits, tensor.data.data() + i * 2, 2);
  return tensor.dtype == DType::BF16 ? to_float(bf16{bits}) : to_float(f16{bits});
}

float rounded(DType dtype, float x) {
  return dtype == DType::BF16 ? to_float(to_bf16(x)) : dtype == DType::F16 ? to_float(to_f16(x)) : x;
}

class WireGolden : public ::testing::TestWithParam<Case> {};

TEST_P(WireGolden, IsReadToTheValuesThatThePackageDecodes) {
  const Read read(GetParam());
  ASSERT_NE(read.matrix.codec, nullptr);
  const auto [rows, cols] = std::pair{read.matrix.rows, read.matrix.cols};
  std::vector<float> decoded(static_cast<std::size_t>(rows * cols));
  read.matrix.codec->decode_rows(read.encoded(), TensorView(decoded.data(), DType::F32, {rows, cols}));
  const files::SafetensorsTensor& expected = read.file.at(GetParam().name + ".decoded");
  const auto count = static_cast<std::size_t>(expected.shape.numel());
  // LLM.int8 multiplies by the row's largest magnitude before it divides by 127: one rounding more.
  const float bound = GetParam().name == "int8" ? 0x1p-22f : 0.0f;
  for (std::size_t i = 0; i < count; ++i) {
    const float wanted = value_at(expected, i);
    ASSERT_LE(std::abs(rounded(expected.dtype, decoded[i]) - wanted), bound * std::abs(wanted))
        << read.matrix.codec->name() << ": row " << i / cols << ", column " << i % cols << ": " << decoded[i] << ", "
        << wanted;
  }
}

TEST_P(WireGolden, IsWrittenToTheSameBytes) {
  const Read read(GetParam());
  const std::vector<std::byte> encoded = read.encoded();
  if (!read.wire().refusal(read.matrix).empty()) {  // read only
    EXPECT_TRUE(GetParam().name == "int8" || GetParam().name == "v1_4_asym" || GetParam().name == "v1_3_asym")
        << read.wire().refusal(read.matrix);
    return;
  }
  for (const Part& part : read.wire().pack(read.matrix, encoded)) {
    if (part.entry.name.find("quant_state") != std::string::npos) continue;  // text: below
    const files::SafetensorsTensor& expected = read.file.at(part.entry.name);
    EXPECT_EQ(part.entry.dtype, expected.dtype) << part.entry.name;
    EXPECT_EQ(part.entry.shape, expected.shape) << part.entry.name << ": " << part.entry.shape.str();
    EXPECT_TRUE(std::ranges::equal(part.bytes, expected.data)) << part.entry.name;
  }
  std::set<std::string> names;
  for (const files::SafetensorsEntry& entry : read.wire().entries(read.matrix)) names.insert(entry.name);
  for (const files::SafetensorsTensor& tensor : read.file.tensors()) {
    const bool stored = tensor.name.starts_with(GetParam().name + ".") && !tensor.name.ends_with(".decoded");
    EXPECT_EQ(names.contains(tensor.name), stored) << tensor.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Wires, WireGolden, ::testing::ValuesIn(cases()),
                         [](const auto& param_info) { return param_info.param.file + "_" + param_info.param.name; });

TEST(CompressedTensorsGolden, WeightsAreRoundedAsThePackageRoundsThem) {
  for (const Case& each : cases()) {
    if (!each.file.starts_with("compressed_tensors")) continue;
    const Read read(each);
    const files::SafetensorsTensor& w = read.file.at(read.matrix.rows > 100 ? "tall" : "w");
    std::vector<std::uint16_t> values(static_cast<std::size_t>(read.matrix.rows * read.matrix.cols));
    std::memcpy(values.data(), w.data.data(), values.size() * 2);
    const std::vector<std::byte> expected = read.encoded();
    std::vector<std::byte> encoded(expected.size());
    read.matrix.codec->encode_rows(TensorView(values.data(), DType::BF16, {read.matrix.rows, read.matrix.cols}), encoded);
    const auto different = std::ranges::mismatch(encoded, expected).in1 - encoded.begin();
    EXPECT_TRUE(encoded == expected) << each.name << ", " << read.matrix.codec->name() << ": byte " << different
                                     << " of rows of " << read.matrix.codec->row_bytes(read.matrix.cols);
  }
}

TEST(CompressedTensorsGolden, ConfigurationsSayWhatThePackageSays) {
  for (const Case& each : cases()) {
    if (!each.file.starts_with("compressed_tensors")) continue;
    const Read read(each);
    const Json config = read.wire().config(std::span(&read.matrix, 1));
    EXPECT_EQ(config.at("format"), read.config.at("format")) << each.name;
    EXPECT_EQ(config.at("ignore"), read.config.at("ignore")) << each.name;
    const Json& found = config.at("config_groups").at("group_0");
    const Json& expected = read.config.at("config_groups").at("group_0");
    for (const char* key : {"format", "targets"}) EXPECT_EQ(found.at(key), expected.at(key)) << each.name;
    for (const char* side : {"weights", "input_activations", "output_activations"}) {
      ASSERT_EQ(found.at(side).is_null(), expected.at(side).is_null()) << each.name << " " << side;
      if (found.at(side).is_null()) continue;
      for (const auto& [key, value] : found.at(side).items())
        EXPECT_EQ(value, expected.at(side).at(key)) << each.name << " " << side << " " << key;
    }
  }
}

TEST(CompressedTensorsGolden, StaticActivationsAreRoundedAsThePackageRoundsThem) {
  for (const Case& each : cases()) {
    if (each.file != "compressed_tensors_static") continue;
    const Read read(each);
    ASSERT_NE(read.matrix.input, nullptr) << each.name;
    ASSERT_TRUE(read.matrix.input_range.known()) << each.name;
    const files::SafetensorsTensor &x = read.file.at("x"), &expected = read.file.at("x.rounded." + each.name);
    std::vector<std::uint16_t> values(x.data.size() / 2), found(values.size()), wanted(values.size());
    std::memcpy(values.data(), x.data.data(), x.data.size());
    std::memcpy(wanted.data(), expected.data.data(), x.data.size());
    quant::round_activations(quant::in_dtype(*read.matrix.input, DType::BF16),
                             TensorView(values.data(), DType::BF16, x.shape), TensorView(found.data(), DType::BF16, x.shape),
                             read.matrix.input_range);
    for (std::size_t i = 0; i < found.size(); ++i)
      ASSERT_EQ(to_float(bf16{found[i]}), to_float(bf16{wanted[i]}))
          << each.name << " " << i << " of " << to_float(bf16{values[i]});
    EXPECT_EQ(read.matrix.output != nullptr, each.name == "int8_outputs");
    EXPECT_EQ(read.matrix.output_range.zero, read.matrix.output ? -43 : 0) << "of [-1.25, 2.5]";
  }
}

TEST(BitsandbytesGolden, QuantStatesSayWhatThePackageSays) {
  for (const Case& each : cases()) {
    if (each.file != "bitsandbytes" || each.name == "int8") continue;
    const Read read(each);
    for (const Part& part : read.wire().pack(read.matrix, read.encoded())) {
      if (part.entry.name.find("quant_state") == std::string::npos) continue;
      const auto text = [](std::span<const std::byte> bytes) {
        return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      };
      EXPECT_EQ(files::parse_json(text(part.bytes), "ours"),
                files::parse_json(text(read.file.at(part.entry.name).data), "the package's"));
    }
  }
}

/// The folder's runtime rounds activations; where outliers begin is written in it, or is the default.
TEST(BitsandbytesGolden, ActivationsOfLlmInt8AreRounded) {
  const Read read({"bitsandbytes", "int8"});
  EXPECT_EQ(read.matrix.input, &quant::activation_codec("llm-int8"));
  const auto described = [&](const Json& threshold) {
    Json config = read.config;
    config["llm_int8_threshold"] = threshold;
    Matrix matrix = read.matrix;
    matrix.input = nullptr;
    read.wire().describe(matrix, config, read.file.metadata(), read.find);
    return matrix.input;
  };
  EXPECT_EQ(described(6.0), read.matrix.input);
  EXPECT_THROW(described("six"), BadFile);
  try {
    described(4.5);
    FAIL() << "no exception";
  } catch (const Unsupported& error) {
    EXPECT_NE(std::string(error.what()).find("llm_int8_threshold"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("4.5"), std::string::npos) << error.what();
  }
}

TEST(BitsandbytesGolden, BlocksThatCrossRowsAreRefused) {
  try {
    const Read read({"bitsandbytes", "crossing"});
    FAIL() << "no exception";
  } catch (const Unsupported& error) {
    EXPECT_NE(std::string(error.what()).find("cross rows"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace temper::wires
