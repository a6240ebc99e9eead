// Formats against the packages that define them (tools/oracles/make_quant_goldens.py): the scalar definition, and the fast
// path of every instruction set that this CPU has, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>

#include "arrays.h"

namespace temper::quant {
namespace {

TEST(Ggml, EncodesAsGgmlDoes) {
  const auto arrays = read_arrays("ggml.bin");
  const std::vector<float> x = arrays.at("x").floats();
  const std::int64_t cols = arrays.at("x").row_size() / 4;
  for (const std::string name : {"q4_0", "q8_0"}) {
    const Codec& codec = *find_codec(name);
    const Array& expected = arrays.at(name + ".q");
    expect_same_bytes(encode_reference(codec, x, cols), expected.bytes, expected.row_size(), name);
    expect_fast_paths(codec, x, cols, expected.bytes, {});
  }
}

class GgmlDecode : public ::testing::TestWithParam<const char*> {};

TEST_P(GgmlDecode, DecodesAsGgmlDoes) {
  const auto arrays = read_arrays("ggml.bin");
  const Codec& codec = *find_codec(GetParam());
  for (const char* kind : {"", ".noise"}) {
    const std::string key = std::string(GetParam()) + kind;
    const Array& q = arrays.at(key + ".q");
    const Array& dq = arrays.at(key + ".dq");
    const std::int64_t cols = dq.row_size() / 4;
    ASSERT_EQ(codec.row_bytes(cols), static_cast<std::size_t>(q.row_size()));
    const auto encoded = std::span(q.bytes).first(static_cast<std::size_t>(dq.rows * q.row_size()));
    expect_same_floats(decode_reference(codec, encoded, dq.rows, cols), dq.floats(), cols, key);
    for (const Isa isa : available_isas()) {
      set_row_kernels(isa);
      std::vector<float> out(dq.bytes.size() / 4);
      codec.decode_rows(encoded, TensorView(out.data(), DType::F32, {dq.rows, cols}));
      expect_same_floats(out, dq.floats(), cols, fmt::format("{} on {}", key, isa_name(isa)));
    }
    set_row_kernels(active_isa());
  }
}

INSTANTIATE_TEST_SUITE_P(Types, GgmlDecode,
                         ::testing::Values("q4_0", "q8_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k"),
                         [](const auto& param_info) { return std::string(param_info.param); });

class IntSym : public ::testing::TestWithParam<const char*> {};

void expect_scales(const Codec& codec, const std::vector<float>& x, std::int64_t cols, const std::vector<float>& scales) {
  std::vector<float> params(codec.params_per_row(cols));
  for (std::size_t r = 0; r * cols < x.size(); ++r) {
    codec.fit(std::span(x).subspan(r * cols, cols), params);
    expect_same_floats(params, std::span(scales).subspan(r * params.size(), params.size()), 1,
                       fmt::format("scales of row {}", r));
  }
}

TEST_P(IntSym, EqualsTorchaosFormulaOnSpecialRows) {
  const auto arrays = read_arrays("int_sym.bin");
  const Array input = read_arrays("ggml.bin").at("x");
  const std::string name = GetParam();
  const Codec& codec = *find_codec(name);
  const std::vector<float> x = input.floats(), scales = arrays.at(name + ".scale").floats();
  const std::int64_t rows = input.rows, cols = input.row_size() / 4, groups = codec.params_per_row(cols);
  expect_scales(codec, x, cols, scales);
  const std::vector<std::byte> encoded = encode_reference(codec, x, cols);
  const Array& expected = arrays.at(name + ".codes");
  std::vector<std::int32_t> codes(cols);
  std::vector<float> dq;
  for (std::int64_t r = 0; r < rows; ++r) {
    codec.codes(std::span(encoded).subspan(r * codec.row_bytes(cols), codec.row_bytes(cols)), codes);
    for (std::int64_t i = 0; i < cols; ++i) {
      const auto code = static_cast<std::int8_t>(expected.row(r)[i]);
      ASSERT_EQ(codes[i], code) << r << ", " << i;
      dq.push_back(static_cast<float>(code) * scales[r * groups + i * groups / cols]);
    }
  }
  expect_same_floats(decode_reference(codec, encoded, rows, cols), dq, cols, name);
  expect_fast_paths(codec, x, cols, encoded, dq);
}

INSTANTIATE_TEST_SUITE_P(Names, IntSym, ::testing::Values("int4-sym-g32", "int4-sym-g128", "int8-sym", "int8-sym-g32"),
                         [](const auto& param_info) {
                           std::string name = param_info.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST(Torchao, FakeQuantizerGivesTheSameWeights) {
  const auto arrays = read_arrays("torchao.bin");
  const std::vector<float> w = arrays.at("W").floats();
  const std::int64_t rows = arrays.at("W").rows, cols = arrays.at("W").row_size() / 4;
  for (const std::string name : {"int4-sym-g32", "int8-sym", "int8-sym-g32"}) {
    const Codec& codec = *find_codec(name);
    const std::vector<float> expected = arrays.at(name + ".dq").floats();
    expect_scales(codec, w, cols, arrays.at(name + ".scale").floats());
    const std::vector<std::byte> encoded = encode_reference(codec, w, cols);
    const std::vector<float> found = decode_reference(codec, encoded, rows, cols);
    // Compared as numbers: torch may keep the sign of a zero, a code has one zero.
    for (std::size_t i = 0; i < found.size(); ++i) ASSERT_EQ(found[i], expected[i]) << name << ": " << i;
    expect_fast_paths(codec, w, cols, encoded, found);
  }
}

}  // namespace
}  // namespace temper::quant
