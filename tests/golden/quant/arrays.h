// Golden arrays from tests/data/quant, and comparisons of whole encodings with them.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>

#include "quant/codec.h"
#include "quant/row_kernels.h"

namespace temper::quant {

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

inline std::map<std::string, Array> read_arrays(const std::string& file) {
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
inline void expect_same_floats(std::span<const float> found, std::span<const float> expected, std::int64_t cols,
                               const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (std::isnan(found[i]) && std::isnan(expected[i])) continue;
    ASSERT_EQ(std::bit_cast<std::uint32_t>(found[i]), std::bit_cast<std::uint32_t>(expected[i]))
        << what << ": row " << i / cols << ", column " << i % cols << ": " << found[i] << ", expected " << expected[i];
  }
}

inline void expect_same_bytes(std::span<const std::byte> found, std::span<const std::byte> expected, std::size_t row,
                              const std::string& what) {
  ASSERT_EQ(found.size(), expected.size()) << what;
  for (std::size_t i = 0; i < found.size(); ++i)
    ASSERT_EQ(static_cast<int>(found[i]), static_cast<int>(expected[i]))
        << what << ": row " << i / row << ", byte " << i % row;
}

inline std::vector<std::byte> encode_reference(const Codec& codec, std::span<const float> values, std::int64_t cols,
                                               std::span<const float> importance = {}) {
  const std::size_t bytes = codec.row_bytes(cols), rows = values.size() / cols;
  std::vector<std::byte> encoded(rows * bytes);
  std::vector<float> params(codec.params_per_row(cols));
  for (std::size_t r = 0; r < rows; ++r) {
    codec.fit_weighted(values.subspan(r * cols, cols), importance, params);
    codec.round(values.subspan(r * cols, cols), params, std::span(encoded).subspan(r * bytes, bytes));
  }
  return encoded;
}

inline std::vector<float> decode_reference(const Codec& codec, std::span<const std::byte> encoded, std::int64_t rows,
                                           std::int64_t cols) {
  std::vector<float> values(rows * cols);
  const std::size_t bytes = codec.row_bytes(cols);
  for (std::int64_t r = 0; r < rows; ++r)
    codec.decode(encoded.subspan(r * bytes, bytes), std::span(values).subspan(r * cols, cols));
  return values;
}

/// encode_weighted of f32 values, and decode_rows to f32 if there is something to compare, on every instruction set.
inline void expect_fast_paths(const Codec& codec, std::vector<float> values, std::int64_t cols,
                              std::span<const std::byte> encoded, std::span<const float> decoded,
                              std::span<const float> importance = {}) {
  const std::int64_t rows = static_cast<std::int64_t>(values.size()) / cols;
  for (const Isa isa : available_isas()) {
    const std::string what = fmt::format("{} on {}", codec.name(), isa_name(isa));
    set_row_kernels(isa);
    std::vector<std::byte> found(encoded.size());
    codec.encode_weighted(TensorView(values.data(), DType::F32, {rows, cols}), importance, found);
    expect_same_bytes(found, encoded, codec.row_bytes(cols), what);
    if (decoded.empty()) continue;
    std::vector<float> out(values.size());
    codec.decode_rows(encoded, TensorView(out.data(), DType::F32, {rows, cols}));
    expect_same_floats(out, decoded, cols, what);
  }
  set_row_kernels(active_isa());
}

}  // namespace temper::quant
