// Post-training quantization of a model whose file holds q, k, v and gate, up in one matrix each.
#include <gtest/gtest.h>

#include <cstring>

#include "files/safetensors.h"
#include "ops/cpu/cpu_backend.h"
#include "ptq/quantizer.h"
#include "temporary_folder.h"

namespace temper::ptq {
namespace {

namespace fs = std::filesystem;

fs::path data(const char* name) { return fs::path(TEMPER_TEST_DATA) / "wires" / "phi3" / name; }

class Fused : public ::testing::Test {
 protected:
  Arena arena_{std::size_t{1} << 28};
  ExecContext ctx_{&ops::cpu_backend(), &arena_, DType::F32};
  testing::TemporaryFolder folder_;
  files::SafetensorsFile stored_{data("base.safetensors")};

  void SetUp() override {
    fs::copy_file(data("base.safetensors"), folder_.path() / "model.safetensors");
    fs::copy_file(data("base.json"), folder_.path() / "config.json");
  }
};

TEST_F(Fused, ParametersOfTheWholeMatrixAreFitOverAllOfIt) {
  const auto reader = model::CheckpointReader::open(folder_.path());
  for (const char* scheme : {"fp8-e4m3-ct-tensor-bf16", "nvfp4-ct", "nf4-dq", "int4-sym-g32"}) {
    model::BaseWeights base(reader, DType::F32);
    model::EncodedWeights weights(ctx_, base, quant::scheme(scheme), DType::BF16, model::Codes::Given);
    make_codes(ctx_, weights, *make_method({}, nullptr), nullptr, 0);
    for (const std::vector<std::size_t>& parts : model::stored_tensors(reader.table())) {
      const model::TensorInfo& info = reader.table()[parts.front()];
      const quant::Codec* codec = weights.codec(parts.front());
      if (!codec) continue;
      Tensor values(DType::BF16, info.stored_shape());
      std::memcpy(values->data, stored_.at(info.stored_hf_name()).data.data(), values->bytes());
      std::vector<std::byte> expected(static_cast<std::size_t>(values->rows()) * codec->row_bytes(values->cols())), found;
      codec->encode_rows(values, expected);
      for (const std::size_t part : parts) {
        const auto rows = weights.encoded(part).bytes;
        found.insert(found.end(), rows.begin(), rows.end());
      }
      EXPECT_TRUE(found == expected) << scheme << " " << info.stored_hf_name();
    }
  }
}

}  // namespace
}  // namespace temper::ptq
