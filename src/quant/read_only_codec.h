// Base of the GGUF formats that are only read.
#pragma once

#include <cstring>

#include "quant/checks.h"
#include "quant/codec.h"

namespace temper::quant {

/// `Format` has: Block (the bytes of a file), kName, kElements, unpack(block, codes) and decode(block, codes, values), both
/// over the kElements of a block.
template <typename Format>
class ReadOnlyCodec final : public Codec {
  using Block = typename Format::Block;
  static constexpr std::size_t kElements = Format::kElements;

 public:
  ReadOnlyCodec() : Codec(Format::kName, kElements, false) {}

  std::size_t row_bytes(std::int64_t cols) const override {
    check_cols(*this, cols);
    return static_cast<std::size_t>(cols) / kElements * sizeof(Block);
  }
  std::int64_t params_per_row(std::int64_t) const override { refuse_to_write(*this); }
  void fit(std::span<const float>, std::span<float>) const override { refuse_to_write(*this); }
  void round(std::span<const float>, std::span<const float>, std::span<std::byte>) const override { refuse_to_write(*this); }
  void encode_rows(const TensorView&, std::span<std::byte>) const override { refuse_to_write(*this); }
  CodeStats stats(std::span<const std::byte>, std::span<const std::byte>, std::int64_t, std::int64_t) const override {
    refuse_to_write(*this);
  }

  void decode(std::span<const std::byte> encoded, std::span<float> row) const override {
    check_size(*this, "encoded bytes", row_bytes(static_cast<std::int64_t>(row.size())), encoded.size());
    decode_blocks(encoded.data(), row.size(), row.data());
  }

  void codes(std::span<const std::byte> encoded, std::span<std::int32_t> out) const override {
    check_size(*this, "encoded bytes", row_bytes(static_cast<std::int64_t>(out.size())), encoded.size());
    for (std::size_t i = 0; i < out.size(); i += kElements) Format::unpack(load(encoded.data(), i), out.data() + i);
  }

  void decode_rows(std::span<const std::byte> encoded, const TensorView& out) const override {
    check_matrix(*this, out, encoded.size());
    const auto cols = static_cast<std::size_t>(out.cols());
    const std::size_t bytes = row_bytes(out.cols());
    std::vector<float> buffer(out.dtype == DType::BF16 ? cols : 0);
    for (std::int64_t r = 0; r < out.rows(); ++r) {
      const std::byte* row = encoded.data() + static_cast<std::size_t>(r) * bytes;
      if (out.dtype == DType::F32) {
        decode_blocks(row, cols, out.as<float>() + r * out.row_stride);
        continue;
      }
      decode_blocks(row, cols, buffer.data());
      bf16* rounded = out.as<bf16>() + r * out.row_stride;
      for (std::size_t i = 0; i < cols; ++i) rounded[i] = to_bf16(buffer[i]);
    }
  }

 private:
  static Block load(const std::byte* row, std::size_t element) {
    Block block;
    std::memcpy(&block, row + element / kElements * sizeof(Block), sizeof(Block));
    return block;
  }

  static void decode_blocks(const std::byte* row, std::size_t cols, float* values) {
    for (std::size_t i = 0; i < cols; i += kElements) {
      const Block block = load(row, i);
      std::int32_t codes[kElements];
      Format::unpack(block, codes);
      Format::decode(block, codes, values + i);
    }
  }
};

}  // namespace temper::quant
