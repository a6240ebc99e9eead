// Scores against the loss that transformers reports for the same tokens (tests/data/hf, tools/oracles/hf_parity.py).
#include <gtest/gtest.h>

#include <cstring>

#include "eval/score.h"
#include "files/safetensors.h"
#include "ops/cpu/cpu_backend.h"

namespace temper::eval {
namespace {

template <typename T>
std::vector<T> values(const files::SafetensorsFile& file, const std::string& name) {
  const files::SafetensorsTensor& tensor = file.at(name);
  std::vector<T> out(tensor.data.size() / sizeof(T));
  std::memcpy(out.data(), tensor.data.data(), tensor.data.size());
  return out;
}

class Parity : public ::testing::TestWithParam<const char*> {};

TEST_P(Parity, NllIsTransformersLoss) {
  const std::string folder = std::string(TEMPER_TEST_DATA) + "/hf/" + GetParam();
  const model::CheckpointReader reader = model::CheckpointReader::open(folder);
  Arena arena(std::size_t{1} << 32);
  const ExecContext ctx{&ops::cpu_backend(), &arena, DType::F32};
  model::BaseWeights weights(reader, DType::F32);
  model::Transformer transformer(reader.arch(), weights);

  const files::SafetensorsFile parity(folder + "/parity.safetensors");
  const auto ids = values<std::int64_t>(parity, "input_ids"), labels = values<std::int64_t>(parity, "labels");
  const std::int64_t rows = parity.at("input_ids").shape[0], length = parity.at("input_ids").shape[1];
  std::vector<text::Sample> samples;
  for (std::int64_t r = 0; r < rows; ++r) {
    text::Sample sample;
    sample.row = r + 1;
    for (std::int64_t t = 0; t < length; ++t) {
      const std::size_t at = static_cast<std::size_t>(r * length + t);
      sample.ids.push_back(static_cast<std::int32_t>(ids[at]));
      sample.labelled.push_back(t > 0 && labels[at] >= 0 ? 1 : 0);
    }
    samples.push_back(std::move(sample));
  }
  const double expected = static_cast<double>(values<float>(parity, "loss")[0]);
  // A mean of losses of about 4.4 in f32: some eps each way.
  EXPECT_NEAR(score(ctx, transformer, samples).nll.value, expected, 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Models, Parity, ::testing::Values("llama_untied", "llama31_tied", "mistral_swa"));

}  // namespace
}  // namespace temper::eval
