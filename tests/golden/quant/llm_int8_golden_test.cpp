// Activations of LLM.int8 as bitsandbytes rounds them (tools/oracles/make_llm_int8_golden.py): codes, scale and values of a
// token alone, bit for bit, by the definition and on every instruction set.
#include <gtest/gtest.h>

#include "arrays.h"
#include "quant/activations.h"

namespace temper::quant {
namespace {

constexpr std::int64_t kCols = 256;

const std::map<std::string, Array>& arrays() {
  static const auto read = read_arrays("llm_int8.bin");
  return read;
}

std::vector<std::int32_t> bytes_as_integers(std::span<const std::byte> bytes) {
  std::vector<std::int32_t> values;
  for (const std::byte b : bytes) values.push_back(static_cast<std::int8_t>(b));
  return values;
}

/// Rows of bf16, and what they are as floats.
std::vector<float> widened(const Array& array) {
  std::vector<float> values(array.bytes.size() / sizeof(bf16));
  Tensor copy(DType::BF16, {array.rows, kCols});
  std::memcpy(copy->data, array.bytes.data(), array.bytes.size());
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = to_float(copy.span<const bf16>()[i]);
  return values;
}

/// The encoding of each row, against what bitsandbytes has of `of` ("f32" or "bf16").
void expect_encoded(std::span<const std::byte> encoded, const std::string& of, std::int64_t rows) {
  const Codec& codec = activation_codec("llm-int8");
  const std::size_t bytes = codec.row_bytes(kCols);
  ASSERT_EQ(encoded.size(), static_cast<std::size_t>(rows) * bytes);
  std::vector<std::int32_t> codes(kCols);
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto row = encoded.subspan(static_cast<std::size_t>(r) * bytes, bytes);
    codec.codes(row, codes);
    ASSERT_EQ(codes, bytes_as_integers(arrays().at(of + ".codes").row(r))) << of << " row " << r;
    ASSERT_EQ(std::memcmp(row.data(), arrays().at(of + ".absmax").row(r).data(), sizeof(float)), 0) << of << " row " << r;
  }
}

TEST(LlmInt8Golden, DefinitionEqualsBitsandbytes) {
  const Codec& codec = activation_codec("llm-int8");
  for (const std::string of : {"f32", "bf16"}) {
    const std::vector<float> x = of == "f32" ? arrays().at("x").floats() : widened(arrays().at("x.bf16"));
    const auto rows = static_cast<std::int64_t>(x.size()) / kCols;
    const std::vector<std::byte> encoded = encode_reference(codec, x, kCols);
    expect_encoded(encoded, of, rows);
    std::vector<float> values = decode_reference(codec, encoded, rows, kCols);
    if (of == "bf16")
      for (float& v : values) v = to_float(to_bf16(v));
    expect_same_floats(values, of == "f32" ? arrays().at("f32.values").floats() : widened(arrays().at("bf16.values")), kCols,
                       of);
  }
}

TEST(LlmInt8Golden, KernelsEqualBitsandbytes) {
  const Codec& codec = activation_codec("llm-int8");
  const std::int64_t rows = arrays().at("x").rows;
  for (const Isa isa : available_isas()) {
    set_row_kernels(isa);
    for (const std::string of : {"f32", "bf16"}) {
      const DType dtype = of == "f32" ? DType::F32 : DType::BF16;
      const std::vector<std::byte>& given = arrays().at(of == "f32" ? "x" : "x.bf16").bytes;
      const Tensor x(dtype, {rows, kCols}), out(dtype, {rows, kCols});
      std::memcpy(x->data, given.data(), given.size());
      std::vector<std::byte> encoded(static_cast<std::size_t>(rows) * codec.row_bytes(kCols));
      codec.encode_rows(x, encoded);
      expect_encoded(encoded, of, rows);
      round_activations(codec, x, out);
      EXPECT_EQ(std::memcmp(out->data, arrays().at(of + ".values").bytes.data(), given.size()), 0)
          << of << " on " << isa_name(isa);
    }
  }
  set_row_kernels(active_isa());
}

/// bitsandbytes exempts a column for all tokens if it is one's outlier: that is all in which a batch differs from its
/// tokens.
TEST(LlmInt8Golden, BatchesOfBitsandbytesDifferInWholeColumns) {
  const Array& batch = arrays().at("batch.codes");
  int exempt = 0;
  for (std::int64_t column = 0; column < kCols; ++column) {
    bool same = true, zero = true, outlier = false;
    for (std::int64_t r = 0; r < batch.rows; ++r) {
      const auto at = static_cast<std::size_t>(column);
      const std::byte alone = arrays().at("f32.codes").row(r)[at], together = batch.row(r)[at];
      same &= alone == together;
      zero &= together == std::byte{0};
      outlier |= std::abs(to_float(to_f16(arrays().at("x").floats()[static_cast<std::size_t>(r * kCols) + at]))) >= 6.0f;
    }
    EXPECT_TRUE(outlier ? zero : same) << column;
    exempt += outlier;
  }
  EXPECT_GT(exempt, 20);
}

}  // namespace
}  // namespace temper::quant
