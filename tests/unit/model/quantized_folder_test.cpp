// Quantized Hugging Face folders, as torchao 0.18 and transformers wrote them (tests/data/wires), opened as models.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "files/json.h"
#include "files/safetensors.h"
#include "model/checkpoint_reader.h"
#include "model/targets.h"
#include "temporary_folder.h"

namespace temper::model {
namespace {

namespace fs = std::filesystem;

fs::path data(const std::string& name) { return fs::path(TEMPER_TEST_DATA) / "wires" / "torchao" / name; }

/// A folder as it was saved.
void lay_out(const fs::path& folder, const std::string& name) {
  fs::create_directories(folder);
  fs::copy_file(data(name + ".safetensors"), folder / "model.safetensors", fs::copy_options::overwrite_existing);
  fs::copy_file(data(name + ".json"), folder / "config.json", fs::copy_options::overwrite_existing);
}

using temper::testing::TemporaryFolder;

class QuantizedFolder : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(QuantizedFolder, HoldsTheCodesOfTheModelThatWasQuantized) {
  const auto& [name, format] = GetParam();
  TemporaryFolder scratch;
  lay_out(scratch.path() / "model", name);
  const auto reader = CheckpointReader::open(scratch.path() / "model");
  const files::SafetensorsFile base(data("base.safetensors"));
  int quantized = 0;
  std::size_t file_bytes = 0;
  for (std::size_t i = 0; i < reader.table().size(); ++i) {
    const TensorInfo& info = reader.table()[i];
    SCOPED_TRACE(info.hf_name);
    const StoredTensor stored = reader.stored(i);
    file_bytes += stored.file_bytes;
    Tensor plain(DType::BF16, info.shape), found(DType::BF16, info.shape);
    std::memcpy(plain->data, base.at(info.hf_name).data.data(), plain->bytes());
    reader.read(i, found);
    if (const quant::Codec* codec = stored.encoded.codec) {
      ++quantized;
      std::vector<std::byte> encoded(stored.encoded.bytes.size());
      codec->encode_rows(plain, encoded);
      EXPECT_TRUE(std::ranges::equal(encoded, stored.encoded.bytes));
      codec->decode_rows(encoded, plain);
    }
    EXPECT_EQ(std::memcmp(plain->data, found->data, plain->bytes()), 0);
  }
  EXPECT_GT(quantized, 0);
  EXPECT_EQ(file_bytes, reader.weight_bytes());
  EXPECT_NE(reader.formats().find(format), std::string::npos) << reader.formats();
}

INSTANTIATE_TEST_SUITE_P(Torchao, QuantizedFolder,
                         ::testing::Values(std::pair{"int8-int4", "int4-sym-g32-bf16"},
                                           std::pair{"int4-g32", "int4-tinygemm-g32-bf16"},
                                           std::pair{"fp8-fp8", "fp8-e4m3-bf16"},
                                           std::pair{"fp8-int4", "int4-mslk-g128-bf16"}, std::pair{"nvfp4", "nvfp4"},
                                           std::pair{"mxfp8", "mxfp8-e4m3"}));

TEST(QuantizedFolders, SaysWhatIsWrong) {
  TemporaryFolder scratch;
  const fs::path folder = scratch.path() / "model";
  const auto refused = [&](auto&& change, auto kind, std::string_view expected) {
    lay_out(folder, "int8-int4");
    files::Json config = files::read_json(folder / "config.json");
    change(config);
    write_file(folder / "config.json", config.dump());
    try {
      CheckpointReader::open(folder);
      ADD_FAILURE() << "opened; expected: " << expected;
    } catch (const decltype(kind)& error) {
      EXPECT_NE(std::string(error.what()).find(expected), std::string::npos) << error.what();
    }
  };
  refused([](files::Json& config) { config["quantization_config"]["quant_method"] = "hqq"; }, Unsupported("{}", ""),
          "\"hqq\"");
  refused([](files::Json& config) { config["quantization_config"] = 4; }, BadFile("{}", ""), "quantization_config");
  refused([](files::Json& config) { config.erase("quantization_config"); }, BadFile("{}", ""), "missing");
  refused([](files::Json& config) { config["intermediate_size"] = 96; }, BadFile("{}", ""), "expected");
  refused([](files::Json& config) { config["num_hidden_layers"] = 2; }, BadFile("{}", ""), "model.layers.1");
}

TEST(Targets, AreNamedWhereThereIsNone) {
  EXPECT_EQ(wire_of_target("hf"), nullptr);
  EXPECT_EQ(wire_of_target("gguf:q4_0"), nullptr);
  EXPECT_EQ(wire_of_target("torchao"), wires::find_wire("torchao"));
  EXPECT_THROW(wire_of_target("onnx"), BadRecipe);
}

}  // namespace
}  // namespace temper::model
