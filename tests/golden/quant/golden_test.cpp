// Formats against the packages that define them (tools/oracles/make_quant_goldens.py): the scalar definition, and the fast
// path of every instruction set that this CPU has, bit for bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>

#include "quant/codec.h"
#include "quant/row_kernels.h"

namespace temper::quant {
namespace {

struct Array {
  std::int64_t rows = 0;
  std::vector<std::byte> bytes;

  std::int64_t row_size() const { return static_cast<std::int64_t>(bytes.size()) / rows; }
  std::span<const std::byte> row(std::int64_t r) const { return std::span(bytes).subspan(r * row_size(), row_size()); }
  std::vector<float> floats() const {
    std::vector<float> values(bytes.size() / sizeof(float));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
};

std::map<std::string, Array> read_arrays(const std::string& file) {
  std::ifstream in(std::string(TEMPER_TEST_DATA) + "/quant/" + file, std::ios::binary);
  EXPECT_TRUE(in) << file;
  std::map<std::string, Array> arrays;
  std::uint32_t length;
  while (in.read(reinterpret_cast<char*>(&length), sizeof(length))) {
    std::string name(length, '\0');
    std::uint64_t rows = 0, bytes = 0;
    in.read(name.data(), length);
    in.read(reinterpret_cast<char*>(&rows), sizeof(rows));
    in.read(reinterpret_cast<char*>(&bytes), sizeof(bytes));
    Array& array = arrays[name];
    array.rows = static_cast<std::int64_t>(rows);
    array.bytes.resize(bytes);
    in.read(reinterpret_cast<char*>(array.bytes.data()), static_cast<std::streamsize>(bytes));
    EXPECT_TRUE(in) << file << ": " << name;
  }
  return arrays;
}

/// Equal bits, or NaN on both sides (a NaN's payload is no part of any format).
void expect_same_floats(std::span<const float> found, std::span<const float> expected, std::int64_t cols,
                        const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(found[i]) && std::isnan(expected[i])) continue;
    ASSERT_EQ(std::bit_cast<std::uint32_t>(found[i]), std::bit_cast<std::uint32_t>(expected[i]))
        << what << ": row " << i / cols << ", column " << i % cols << ": " << found[i] << ", expected " << expected[i];
  }
}

void expect_same_bytes(std::span<const std::byte> found, std::span<const std::byte> expected, std::size_t row,
                       const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (std::size_t i = 0; i < found.size(); ++i)
    ASSERT_EQ(static_cast<int>(found[i]), static_cast<int>(expected[i]))
        << what << ": row " << i / row << ", byte " << i % row;
}

std::vector<std::byte> encode_reference(const Codec& codec, std::span<const float> values, std::int64_t cols) {
  const std::size_t bytes = codec.row_bytes(cols), rows = values.size() / cols;
  std::vector<std::byte> encoded(rows * bytes);
  std::vector<float> params(codec.params_per_row(cols));
  for (std::size_t r = 0; r < rows; ++r) {
    codec.fit(values.subspan(r * cols, cols), params);
    codec.round(values.subspan(r * cols, cols), params, std::span(encoded).subspan(r * bytes, bytes));
  }
  return encoded;
}

std::vector<float> decode_reference(const Codec& codec, std::span<const std::byte> encoded, std::int64_t rows,
                                    std::int64_t cols) {
  std::vector<float> values(rows * cols);
  const std::size_t bytes = codec.row_bytes(cols);
  for (std::int64_t r = 0; r < rows; ++r)
    codec.decode(encoded.subspan(r * bytes, bytes), std::span(values).subspan(r * cols, cols));
  return values;
}

/// encode_rows of f32 values and decode_rows to f32 on every instruction set.
void expect_fast_paths(const Codec& codec, std::vector<float> values, std::int64_t cols, std::span<const std::byte> encoded,
                       std::span<const float> decoded) {
  const std::int64_t rows = static_cast<std::int64_t>(values.size()) / cols;
  for (const Isa isa : available_isas()) {
    const std::string what = fmt::format("{} on {}", codec.name(), isa_name(isa));
    set_row_kernels(isa);
    std::vector<std::byte> found(encoded.size());
    codec.encode_rows(TensorView(values.data(), DType::F32, {rows, cols}), found);
    expect_same_bytes(found, encoded, codec.row_bytes(cols), what);
    std::vector<float> out(values.size());
    codec.decode_rows(encoded, TensorView(out.data(), DType::F32, {rows, cols}));
    expect_same_floats(out, decoded, cols, what);
  }
  set_row_kernels(active_isa());
}

TEST(Ggml, EncodesAsGgmlDoes) {
  const auto arrays = read_arrays("ggml.bin");
  const std::vector<float> x = arrays.at("x").floats();
  const std::int64_t cols = arrays.at("x").row_size() / 4;
  for (const std::string name : {"q4_0", "q8_0"}) {
    const Codec& codec = *find_codec(name);
    const Array& expected = arrays.at(name + ".q");
    expect_same_bytes(encode_reference(codec, x, cols), expected.bytes, expected.row_size(), name);
    expect_fast_paths(codec, x, cols, expected.bytes, arrays.at(name + ".dq").floats());
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
    expect_same_floats(decode_reference(codec, q.bytes, q.rows, cols), dq.floats(), cols, key);
    for (const Isa isa : available_isas()) {
      set_row_kernels(isa);
      std::vector<float> out(dq.bytes.size() / 4);
      codec.decode_rows(q.bytes, TensorView(out.data(), DType::F32, {q.rows, cols}));
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
  const std::string name = GetParam();
  const Codec& codec = *find_codec(name);
  const std::vector<float> x = arrays.at("x").floats(), dq = arrays.at(name + ".dq").floats();
  const std::int64_t rows = arrays.at("x").rows, cols = arrays.at("x").row_size() / 4;
  expect_scales(codec, x, cols, arrays.at(name + ".scale").floats());
  const std::vector<std::byte> encoded = encode_reference(codec, x, cols);
  const Array& expected = arrays.at(name + ".codes");
  std::vector<std::int32_t> codes(cols);
  for (std::int64_t r = 0; r < rows; ++r) {
    codec.codes(std::span(encoded).subspan(r * codec.row_bytes(cols), codec.row_bytes(cols)), codes);
    for (std::int64_t i = 0; i < cols; ++i)
      ASSERT_EQ(codes[i], static_cast<std::int8_t>(expected.row(r)[i])) << r << ", " << i;
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
