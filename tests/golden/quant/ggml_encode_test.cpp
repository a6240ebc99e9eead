// Every GGUF format against ggml's own bytes, without and with importance (tools/oracles/make_ggml_encode_goldens.py).
#include <gtest/gtest.h>

#include "arrays.h"

namespace temper::quant {
namespace {

class GgmlEncode : public ::testing::TestWithParam<const char*> {};

TEST_P(GgmlEncode, WithoutAndWithImportance) {
  const auto arrays = read_arrays("ggml_encode.bin");
  const std::string name = GetParam();
  const Codec& codec = *gguf_codec(name);
  const std::vector<float> x = arrays.at("x").floats(), importance = arrays.at("importance").floats();
  const std::int64_t cols = arrays.at("x").row_size() / 4;
  for (const bool weighted : {false, true}) {
    const std::string key = name + (weighted ? ".im.q" : ".q");
    if (!arrays.contains(key)) continue;
    SCOPED_TRACE(key);
    const Array& expected = arrays.at(key);
    const std::span<const float> weights = weighted ? importance : std::span<const float>();
    expect_same_bytes(encode_reference(codec, x, cols, weights), expected.bytes, expected.row_size(), key);
    expect_fast_paths(codec, x, cols, expected.bytes, {}, weights);
  }
  if (!arrays.contains(name + ".dq")) return;
  const Array& dq = arrays.at(name + ".dq");
  const auto encoded = std::span(arrays.at(name + ".q").bytes).first(dq.rows * codec.row_bytes(cols));
  expect_same_floats(decode_reference(codec, encoded, dq.rows, cols), dq.floats(), cols, name);
  expect_fast_paths(codec, std::vector<float>(x.begin(), x.begin() + dq.rows * cols), cols, encoded, dq.floats());
}

INSTANTIATE_TEST_SUITE_P(Types, GgmlEncode,
                         ::testing::Values("q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl",
                                           "iq4_xs", "tq1_0", "tq2_0", "mxfp4", "nvfp4"),
                         [](const auto& param_info) { return std::string(param_info.param); });

TEST(GgmlGrids, DecodeAsGgmlDoes) {
  const auto arrays = read_arrays("ggml_iq.bin");
  for (const std::string name : {"iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq1_s", "iq1_m"}) {
    const Codec& codec = *find_codec(name);
    const Array &q = arrays.at(name + ".q"), &dq = arrays.at(name + ".dq");
    ASSERT_EQ(codec.row_bytes(256), static_cast<std::size_t>(q.row_size())) << name;
    expect_same_floats(decode_reference(codec, q.bytes, q.rows, 256), dq.floats(), 256, name);
  }
}

}  // namespace
}  // namespace temper::quant
