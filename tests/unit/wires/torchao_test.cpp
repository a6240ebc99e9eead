// torchao's checkpoints: what the package wrote is read to the codes that the codec makes, and written again byte for byte.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "files/json.h"
#include "quant/scaled_codec.h"
#include "wire_harness.h"

namespace temper::wires {
namespace {

using files::Json;

const Wire& wire() { return *find_wire("torchao"); }
std::filesystem::path data(const std::string& name) {
  return std::filesystem::path(TEMPER_TEST_DATA) / "wires" / "torchao" / name;
}

struct Case {
  const char *name, *linear, *input, *embedding = "", *head = "", *head_input = "";
};
std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

class TorchaoFiles : public testing::TestWithParam<Case> {
 protected:
  files::SafetensorsFile base{data("base.safetensors")};
  files::SafetensorsFile file{data(std::string(GetParam().name) + ".safetensors")};
  Json config = files::read_json(data(std::string(GetParam().name) + ".json")).at("quantization_config");
  FindTensor find = [this](std::string_view name) { return file.find(name); };

  /// The model's tensors in the case's formats, as the base has them.
  std::vector<Matrix> matrices() const {
    const Case& c = GetParam();
    const auto codec = [](std::string_view name) { return name.empty() ? nullptr : quant::find_codec(name); };
    std::vector<Matrix> all;
    for (const files::SafetensorsTensor& tensor : base.tensors()) {
      Matrix m{tensor.name, quant::Role::Norm, 1, tensor.shape[tensor.shape.rank() - 1]};
      if (tensor.shape.rank() == 2) {
        const bool embedding = tensor.name.starts_with("model.embed"), head = tensor.name.starts_with("lm_head");
        m.rows = tensor.shape[0];
        m.role = embedding ? quant::Role::Embedding : head ? quant::Role::Head : quant::Role::Linear;
        m.codec = codec(embedding ? c.embedding : head ? c.head : c.linear);
        m.input = codec(embedding ? "" : head ? c.head_input : c.input);
        // The one case whose groups do not divide every row.
        if (m.codec && !m.codec->fits(m.cols)) m.codec = m.input = nullptr;
      }
      all.push_back(m);
    }
    return all;
  }

  std::vector<std::byte> encoded(const Matrix& m) const {
    const files::SafetensorsTensor& tensor = base.at(m.name);
    Tensor values(DType::BF16, {m.rows, m.cols});
    std::memcpy(values->data, tensor.data.data(), tensor.data.size());
    std::vector<std::byte> bytes(static_cast<std::size_t>(m.rows) * m.codec->row_bytes(m.cols));
    m.codec->encode_rows(values, bytes);
    return bytes;
  }
};

TEST_P(TorchaoFiles, AreReadToTheCodesThatTheCodecMakes) {
  int quantized = 0;
  for (const Matrix& m : matrices()) {
    SCOPED_TRACE(m.name);
    Matrix found = m;
    found.codec = found.input = nullptr;
    wire().describe(found, config, file.metadata(), find);
    ASSERT_EQ(found.codec, m.codec) << (found.codec ? found.codec->name() : "plain");
    EXPECT_EQ(found.input, m.input) << (found.input ? found.input->name() : "16 bit");
    if (!m.codec) continue;
    ++quantized;
    EXPECT_TRUE(wire().unpack(found, find) == encoded(m));
  }
  EXPECT_GT(quantized, 0);
}

TEST_P(TorchaoFiles, AreWrittenByteForByte) {
  const std::vector<Matrix> all = matrices();
  std::size_t tensors = 0;
  for (const Matrix& m : all) {
    if (!m.codec) {
      ++tensors;
      continue;
    }
    ASSERT_EQ(wire().refusal(m), "");
    for (const Part& part : wire().pack(m, encoded(m))) {
      SCOPED_TRACE(part.entry.name);
      const files::SafetensorsTensor& expected = file.at(part.entry.name);
      EXPECT_EQ(part.entry.dtype, expected.dtype);
      EXPECT_EQ(part.entry.shape, expected.shape);
      EXPECT_TRUE(std::ranges::equal(part.bytes, expected.data));
      ++tensors;
    }
  }
  EXPECT_EQ(tensors, file.tensors().size());

  const files::SafetensorsMetadata metadata = wire().metadata(all);
  ASSERT_EQ(metadata.size(), file.metadata().size());
  for (const auto& [key, text] : metadata) {
    SCOPED_TRACE(key);
    ASSERT_TRUE(file.metadata().contains(key));
    const std::string& expected = file.metadata().at(key);
    if (key == "format") {
      EXPECT_EQ(text, expected);
    } else if (key == "tensor_names") {
      const auto ours = Json::parse(text).get<std::set<std::string>>();
      EXPECT_EQ(ours, Json::parse(expected).get<std::set<std::string>>());
    } else {
      EXPECT_EQ(Json::parse(text), Json::parse(expected));
    }
  }

  EXPECT_TRUE(wire().matches(config));
  const Json ours = wire().config(all);
  if (config.at("modules_to_not_convert").size() > 0) {  // told by name instead: each in the same configuration
    for (const auto& [name, one] : ours.at("quant_type").at("default").at("_data").at("fqn_to_config").items())
      EXPECT_EQ(one, config.at("quant_type").at("default")) << name;
  } else {
    EXPECT_EQ(ours, config);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Wires, TorchaoFiles,
    testing::Values(Case{"int8-int4-linears", "int4-sym-g32-bf16", "int8-asym"},
                    Case{"int8-int4", "int4-sym-g32-bf16", "int8-asym", "int8-sym-bf16", "int4-sym-g32-bf16", "int8-asym"},
                    Case{"int8", "int8-sym-bf16", ""}, Case{"cactus", "int8-sym-g32-bf16", ""},
                    Case{"int3-asym-g32", "int3-asym-g32-bf16", ""}, Case{"int8-int8", "int8-symeps-bf16", "int8-symeps"},
                    Case{"int8-symeps", "int8-symeps-bf16", ""}, Case{"fp8", "fp8-e4m3-bf16", ""},
                    Case{"fp8-fp8", "fp8-e4m3-bf16", "fp8-e4m3"}, Case{"int4-g32", "int4-tinygemm-g32-bf16", ""},
                    Case{"fp8-int4", "int4-mslk-g128-bf16", "fp8-e4m3"}, Case{"nvfp4", "nvfp4", ""},
                    Case{"nvfp4-nvfp4", "nvfp4", "nvfp4"}, Case{"mxfp8", "mxfp8-e4m3", "mxfp8-e4m3"},
                    Case{"mxfp4", "mxfp4", "mxfp4"}),
    [](const auto& test) {
      std::string name = test.param.name;
      std::ranges::replace(name, '-', '_');
      return name;
    });

TEST(Torchao, RoundTrips) {
  for (const auto& [codec, input] :
       std::initializer_list<std::pair<const char*, const char*>>{{"int4-tinygemm-g128-bf16", ""},
                                                                  {"int4-sym-g32", "int8-asym"},
                                                                  {"int2-sym-g32-bf16", ""},
                                                                  {"int5-asym-g64-bf16", ""},
                                                                  {"int8-symeps", ""},
                                                                  {"fp8-e4m3", "fp8-e4m3"},
                                                                  {"fp8-e4m3-tensor-bf16", ""},
                                                                  {"nvfp4-local", ""},
                                                                  {"int6-sym-g128-f16", ""}})
    for (const std::int64_t rows : {16, 144}) {
      Matrix m = matrix_of(codec, input, rows, 384);
      m.dtype = std::string_view(codec).ends_with("-f16")   ? DType::F16
                : std::string_view(codec) == "int4-sym-g32" ? DType::F32
                                                            : DType::BF16;
      expect_round_trip(wire(), m);
    }
  Matrix m = matrix_of("int4-sym-g32-bf16", "int8-asym", 16, 384);
  m.dtype = DType::F32;  // a scheme's scales stay 16-bit in a 32-bit model
  expect_round_trip(wire(), m);
}

TEST(Torchao, SaysWhatItCannotCarry) {
  const auto why = [](std::string_view codec, std::string_view input, std::int64_t rows = 64) {
    return wire().refusal(matrix_of(codec, input, rows, 256));
  };
  EXPECT_NE(why("nf4", "").find("no tensor class"), std::string::npos);
  EXPECT_NE(why("q4_k", "").find("no tensor class"), std::string::npos);
  EXPECT_NE(why("mxfp6-e2m3", "").find("no tensor class"), std::string::npos);
  EXPECT_NE(why("int4-tinygemm-g128", "").find("bf16"), std::string::npos);
  EXPECT_NE(why("int4-tinygemm-g128-bf16", "fp8-e4m3").find("16-bit activations"), std::string::npos);
  EXPECT_NE(why("int4-mslk-g128-bf16", "").find("without activations"), std::string::npos);
  EXPECT_NE(why("fp8-e4m3-b128", "").find("blocks"), std::string::npos);
  EXPECT_NE(why("mxfp8-e4m3", "").find("without activations"), std::string::npos);
  EXPECT_NE(why("int4-sym-g32-bf16", "fp8-e4m3").find("int8-asym"), std::string::npos);
  EXPECT_NE(why("nvfp4", "", 24).find("multiples of 16"), std::string::npos);
}

TEST(Torchao, RefusesBrokenFiles) {
  const Matrix m = matrix_of("int4-sym-g32-bf16", "int8-asym", 16, 64);
  const auto metadata = wire().metadata(std::span(&m, 1));
  const Json config = wire().config(std::span(&m, 1));
  const auto read = [&](PackedTensors& packed, const files::SafetensorsMetadata& header) {
    Matrix found = m;
    found.codec = found.input = nullptr;
    wire().describe(found, config, header, packed.find());
    return wire().unpack(found, packed.find());
  };
  PackedTensors packed;
  packed.add(wire().pack(m, random_encoded(*m.codec, m.rows, m.cols)));
  EXPECT_NO_THROW(read(packed, metadata));

  const auto with = [&](const char* from, const char* to) {
    auto changed = metadata;
    std::string& text = changed.at(m.name);
    text.replace(text.find(from), std::strlen(from), to);
    return changed;
  };
  EXPECT_THROW(read(packed, with("\"int4\"", "\"int9\"")), Unsupported);
  EXPECT_THROW(read(packed, with("\"int4\"", "\"int2\"")), BadFile);  // codes out of range
  EXPECT_THROW(read(packed, with("[1,32]", "[1,48]")), Unsupported);
  EXPECT_THROW(read(packed, with("[1,32]", "[1,0]")), Unsupported);
  EXPECT_THROW(read(packed, with("[1,32]", "[1,64]")), BadFile);  // shape of the scales
  EXPECT_THROW(read(packed, with("int8_asym_per_token", "int4")), Unsupported);
  EXPECT_THROW(read(packed, with("IntxUnpackedToInt8Tensor", "Int4PreshuffledTensor")), Unsupported);
  EXPECT_THROW(read(packed, with("{", "")), BadFile);
  EXPECT_THROW(read(packed, {}), BadFile);

  PackedTensors short_of_scales = packed;
  short_of_scales.tensors().erase("model.layers.0.mlp.up_proj._weight_scale");
  EXPECT_THROW(read(short_of_scales, metadata), BadFile);
}

}  // namespace
}  // namespace temper::wires
