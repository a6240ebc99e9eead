// Base of the GGUF formats that encode: blocks of 32 with an f16 scale. The rounding of codes is all that differs.
#pragma once

#include <cstring>

#include "quant/group_codec.h"

namespace temper::quant {

/// `Format` has: Block {f16 d; …}, kName, kRows, kBits, scale(x) → unrounded d, code(x, id), put(block, j, q), get(block,
/// j).
template <typename Format>
class BlockCodec final : public GroupCodec {
  using Block = typename Format::Block;
  static constexpr std::size_t kElements = 32;

 public:
  BlockCodec() : GroupCodec(Format::kName, kElements, Format::kRows, sizeof(f16), Format::kBits) {}

  void fit(std::span<const float> row, std::span<float> params) const override {
    check_row(row.size(), params.size(), row_bytes(static_cast<std::int64_t>(row.size())));
    for (std::size_t b = 0; b < params.size(); ++b) params[b] = Format::scale(row.data() + b * kElements);
  }

  void round(std::span<const float> row, std::span<const float> params, std::span<std::byte> encoded) const override {
    check_row(row.size(), params.size(), encoded.size());
    for (std::size_t b = 0; b < params.size(); ++b) {
      Block block{};
      block.d = to_f16(params[b]);
      const float id = params[b] != 0.0f ? 1.0f / params[b] : 0.0f;
      for (std::size_t j = 0; j < kElements; ++j) Format::put(block, j, Format::code(row[b * kElements + j], id));
      std::memcpy(encoded.data() + b * sizeof(Block), &block, sizeof(Block));
    }
  }

  void decode(std::span<const std::byte> encoded, std::span<float> row) const override {
    visit(encoded, row.size(), [&](std::size_t i, int q, float d) { row[i] = static_cast<float>(q) * d; });
  }

  void codes(std::span<const std::byte> encoded, std::span<std::int32_t> out) const override {
    visit(encoded, out.size(), [&](std::size_t i, int q, float) { out[i] = q; });
  }

 private:
  template <typename Visitor>
  void visit(std::span<const std::byte> encoded, std::size_t elements, Visitor&& visitor) const {
    check_row(elements, elements / kElements, encoded.size());
    for (std::size_t b = 0; b * kElements < elements; ++b) {
      Block block;
      std::memcpy(&block, encoded.data() + b * sizeof(Block), sizeof(Block));
      const float d = to_float(block.d);
      for (std::size_t j = 0; j < kElements; ++j) visitor(b * kElements + j, Format::get(block, j), d);
    }
  }
};

}  // namespace temper::quant
