// What every wire is tested with: matrices packed, described and unpacked without a file between.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "quant/codec.h"
#include "wires/wire.h"

namespace temper::wires {

/// The stored tensors of some matrices, by name.
class PackedTensors {
 public:
  void add(std::vector<Part> parts) {
    for (Part& part : parts) {
      const std::string name = part.entry.name;
      Part& kept = parts_.insert_or_assign(name, std::move(part)).first->second;
      tensors_.insert_or_assign(name, files::SafetensorsTensor{name, kept.entry.dtype, kept.entry.shape, kept.bytes});
    }
  }
  FindTensor find() const {
    return [this](std::string_view name) {
      const auto found = tensors_.find(name);
      return found == tensors_.end() ? nullptr : &found->second;
    };
  }
  std::map<std::string, files::SafetensorsTensor, std::less<>>& tensors() { return tensors_; }  ///< To be spoilt.

 private:
  std::map<std::string, Part, std::less<>> parts_;
  std::map<std::string, files::SafetensorsTensor, std::less<>> tensors_;
};

/// Normal values in bf16, encoded.
inline std::vector<std::byte> random_encoded(const quant::Codec& codec, std::int64_t rows, std::int64_t cols,
                                             unsigned seed = 7) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, 0.03f);
  Tensor values(DType::BF16, {rows, cols});
  for (std::int64_t i = 0; i < rows * cols; ++i) values->as<bf16>()[i] = to_bf16(normal(generator));
  std::vector<std::byte> encoded(static_cast<std::size_t>(rows) * codec.row_bytes(cols));
  codec.encode_rows(values, encoded);
  return encoded;
}

inline Matrix matrix_of(std::string_view codec, std::string_view input, std::int64_t rows, std::int64_t cols,
                        quant::Role role = quant::Role::Linear) {
  Matrix matrix{"model.layers.0.mlp.up_proj.weight",
                role,
                rows,
                cols,
                quant::find_codec(codec),
                input.empty() ? nullptr : quant::find_codec(input),
                DType::BF16};
  EXPECT_NE(matrix.codec, nullptr) << codec;
  EXPECT_EQ(matrix.input == nullptr, input.empty()) << input;
  return matrix;
}

/// Packs a random matrix, describes and unpacks it again: parts as declared, the same codec and input, the same bytes.
inline void expect_round_trip(const Wire& wire, const Matrix& matrix) {
  SCOPED_TRACE(testing::Message() << wire.name() << " " << matrix.codec->name() << " [" << matrix.rows << ", " << matrix.cols
                                  << "]");
  ASSERT_EQ(wire.refusal(matrix), "");
  const std::vector<std::byte> encoded = random_encoded(*matrix.codec, matrix.rows, matrix.cols);
  std::vector<Part> parts = wire.pack(matrix, encoded);
  const std::vector<files::SafetensorsEntry> entries = wire.entries(matrix);
  ASSERT_EQ(entries.size(), parts.size());
  for (std::size_t i = 0; i < parts.size(); ++i) {
    EXPECT_EQ(entries[i].name, parts[i].entry.name);
    EXPECT_EQ(entries[i].dtype, parts[i].entry.dtype) << entries[i].name;
    EXPECT_EQ(entries[i].shape, parts[i].entry.shape) << entries[i].name;
    EXPECT_EQ(entries[i].bytes(), parts[i].bytes.size()) << entries[i].name;
  }
  const nlohmann::json config = wire.config(std::span(&matrix, 1));
  EXPECT_TRUE(wire.matches(config)) << config;
  PackedTensors packed;
  packed.add(std::move(parts));
  Matrix found = matrix;
  found.codec = found.input = found.output = nullptr;
  found.input_range = found.output_range = {};
  wire.describe(found, config, wire.metadata(std::span(&matrix, 1)), packed.find());
  ASSERT_NE(found.codec, nullptr);
  EXPECT_EQ(found.codec->name(), matrix.codec->name());
  EXPECT_EQ(found.input, matrix.input);
  EXPECT_EQ(found.output, matrix.output);
  EXPECT_EQ(found.input_range, matrix.input_range);
  EXPECT_EQ(found.output_range, matrix.output_range);
  EXPECT_TRUE(wire.unpack(found, packed.find()) == encoded);
}

}  // namespace temper::wires
