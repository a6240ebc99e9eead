// Phi-3 in quantized folders: matrices that a checkpoint stores as one are read into their parts and written from them, as
// the packages themselves stored them (tools/oracles/make_phi3_wires.py).
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "export/wire_export.h"
#include "files/json.h"
#include "ops/cpu/cpu_backend.h"
#include "temporary_folder.h"
#include "tiny_model.h"

namespace temper::exporter {
namespace {

namespace fs = std::filesystem;

struct Case {
  const char *name, *wire, *scheme;
};
std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

fs::path data(const std::string& name) { return fs::path(TEMPER_TEST_DATA) / "wires" / "phi3" / name; }

class Phi3Folders : public ::testing::Test {
 protected:
  temper::testing::TemporaryFolder scratch_;
  Arena workspace_{std::size_t{1} << 28};
  ExecContext ctx_{&ops::cpu_backend(), &workspace_, DType::F32};

  /// A folder as it was saved, with a tokenizer.
  model::CheckpointReader open(const std::string& name) {
    const fs::path folder = scratch_.path() / name;
    fs::create_directories(folder);
    fs::copy_file(data(name + ".safetensors"), folder / "model.safetensors");
    fs::copy_file(data(name + ".json"), folder / "config.json");
    testing::write_tiny_tokenizer(folder);
    return model::CheckpointReader::open(folder);
  }
};

class WireFused : public Phi3Folders, public ::testing::WithParamInterface<Case> {};

/// The codes that the format's own rounding makes of the whole stored matrix.
std::vector<std::byte> whole_rows(const quant::Codec& codec, const files::SafetensorsTensor& stored) {
  Tensor values(stored.dtype, stored.shape);
  std::memcpy(values->data, stored.data.data(), values->bytes());
  std::vector<std::byte> encoded(static_cast<std::size_t>(values->rows()) * codec.row_bytes(values->cols()));
  codec.encode_rows(values, encoded);
  return encoded;
}

TEST_P(WireFused, IsReadIntoItsParts) {
  const auto reader = open(GetParam().name);
  const files::SafetensorsFile base(data("base.safetensors"));
  int parts = 0;
  for (std::size_t i = 0; i < reader.table().size(); ++i) {
    const model::TensorInfo& info = reader.table()[i];
    const model::StoredTensor stored = reader.stored(i);
    ASSERT_EQ(info.role == quant::Role::Linear, !stored.plain) << info.hf_name;
    if (stored.plain) continue;
    const quant::Codec& codec = *stored.encoded.codec;
    const std::size_t first =
        static_cast<std::size_t>(info.fused ? info.fused->first_row : 0) * codec.row_bytes(info.shape[1]);
    const std::vector<std::byte> whole = whole_rows(codec, base.at(info.stored_hf_name()));
    EXPECT_TRUE(std::ranges::equal(stored.encoded.bytes, std::span(whole).subspan(first, stored.encoded.bytes.size())))
        << info.hf_name << " " << codec.name();
    parts += info.fused ? 1 : 0;
  }
  EXPECT_EQ(parts, 5);
}

TEST_P(WireFused, IsWrittenAsThePackageWritesIt) {
  const auto reader = open("base");
  const auto tokenizer = text::Tokenizer::load(reader.path());
  const ExportSource source(reader, &tokenizer);
  const wires::Wire& wire = *wires::find_wire(GetParam().wire);
  const quant::Scheme& scheme = quant::scheme(GetParam().scheme);
  const fs::path folder = scratch_.path() / "written";
  model::require_target(GetParam().wire, reader.table(), scheme, DType::BF16, model::PartsFit::Together);
  write_wire(ctx_, source, wire, scheme, folder);
  verify_wire(ctx_, source, scheme, folder);
  const files::SafetensorsFile expected(data(std::string(GetParam().name) + ".safetensors")),
      found(folder / "model.safetensors");
  EXPECT_EQ(found.tensors().size(), expected.tensors().size());
  for (const files::SafetensorsTensor& tensor : expected.tensors()) {
    const files::SafetensorsTensor* ours = found.find(tensor.name);
    ASSERT_NE(ours, nullptr) << tensor.name;
    if (tensor.name.find("quant_state") != std::string::npos) {  // text, in which numbers may be written otherwise
      const auto text = [](std::span<const std::byte> bytes) {
        return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      };
      EXPECT_EQ(files::Json::parse(text(ours->data)), files::Json::parse(text(tensor.data))) << tensor.name;
      continue;
    }
    EXPECT_EQ(ours->shape, tensor.shape) << tensor.name;
    EXPECT_TRUE(ours->dtype == tensor.dtype && std::ranges::equal(ours->data, tensor.data)) << tensor.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Phi3, WireFused,
                         ::testing::Values(Case{"torchao-int8-int4", "torchao", "int4-sym-g32-bf16/int8-asym"},
                                           Case{"torchao-nvfp4", "torchao", "nvfp4/none"},
                                           Case{"compressed-tensors-int4-asym", "compressed-tensors",
                                                "int4-ctasym-g32-bf16"},
                                           Case{"compressed-tensors-fp8", "compressed-tensors", "fp8-e4m3-ct-tensor-bf16"},
                                           Case{"bitsandbytes-nf4-dq", "bitsandbytes", "nf4-dq"}),
                         [](const auto& param_info) {
                           std::string name = param_info.param.name;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

/// Wires without a file of a package's own here, and what the others have beside: there and back.
TEST_F(Phi3Folders, EveryWireGivesBackWhatItWasGiven) {
  const auto reader = open("base");
  const auto tokenizer = text::Tokenizer::load(reader.path());
  const ExportSource source(reader, &tokenizer);
  for (const auto& [name, target, format] :
       {Case{"gptq", "gptq", "int4-ctsym-g32-f16"}, Case{"gptq-v2", "gptq-v2", "int3-ctasym-g32-f16"},
        Case{"awq", "awq", "int4-ctasym-g32-f16"}, Case{"int8", "compressed-tensors", "int8-ctsym-bf16/int8-ctsym"},
        Case{"nvfp4", "compressed-tensors", "nvfp4-ct"}, Case{"mxfp8", "torchao", "mxfp8"},
        Case{"fp4", "bitsandbytes", "fp4"}, Case{"tinygemm", "torchao", "int4-g32"},
        Case{"rules", "torchao", "none; q_proj,k_proj,v_proj: int8-sym-bf16"}}) {
    SCOPED_TRACE(name);
    const quant::Scheme& scheme = quant::scheme(format);
    const fs::path folder = scratch_.path() / ("written-" + std::string(name));
    model::require_target(target, reader.table(), scheme, DType::BF16, model::PartsFit::Together);
    write_wire(ctx_, source, *wires::find_wire(target), scheme, folder);
    verify_wire(ctx_, source, scheme, folder);
    std::size_t bytes = 0, files = 0;
    const auto written = model::CheckpointReader::open(folder);
    for (std::size_t i = 0; i < written.table().size(); ++i) bytes += written.stored(i).file_bytes;
    const files::SafetensorsFile file(folder / "model.safetensors");
    for (const files::SafetensorsTensor& tensor : file.tensors()) files += tensor.data.size();
    EXPECT_EQ(bytes, files);
  }
}

}  // namespace
}  // namespace temper::exporter
