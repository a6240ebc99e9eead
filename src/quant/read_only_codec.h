// Base of the GGUF formats that are only read.
#pragma once

#include <cstring>

#include "quant/checks.h"
#include "quant/codec.h"
#include "quant/row_kernels.h"

namespace temper::quant {

/// `Format` has: Block (the bytes of a file), kName, kElements, kRows, unpack(block, codes) and decode(block, codes,
/// values), both over the kElements of a block.
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
    for (std::size_t i = 0; i < row.size(); i += kElements) {
      const Block block = load(encoded.data(), i);
      std::int32_t codes[kElements];
      Format::unpack(block, codes);
      Format::decode(block, codes, row.data() + i);
    }
  }

  void codes(std::span<const std::byte> encoded, std::span<std::int32_t> out) const override {
    check_size(*this, "encoded bytes", row_bytes(static_cast<std::int64_t>(out.size())), encoded.size());
    for (std::size_t i = 0; i < out.size(); i += kElements) Format::unpack(load(encoded.data(), i), out.data() + i);
  }

  void decode_rows(std::span<const std::byte> encoded, const TensorView& out) const override {
    decode_matrix(*this, Format::kRows.in_use(), kElements, encoded, out);
  }

 private:
  static Block load(const std::byte* row, std::size_t element) {
    Block block;
    std::memcpy(&block, row + element / kElements * sizeof(Block), sizeof(Block));
    return block;
  }
};

}  // namespace temper::quant
