// Base of the GGUF formats: an encoded row is a sequence of blocks, each what the file holds.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "quant/checks.h"
#include "quant/codec.h"
#include "quant/overflow.h"
#include "quant/row_kernels.h"

namespace temper::quant {

/// `Format` has
///     Block                    the bytes of a file; kElements of a row
///     kName, kRows             kernels; where they have no encode, kSearch has
///     kParams                  floats of a block that `round` needs
///     kLow, kHigh              ends of the codes' range
///     fit(x, importance, energy, params)    `importance` of the block's elements or null; `energy` is the row's mean square
///     round(x, params, block)
///     reround(x, block)        round with the parameters of the block
///     codes(block, codes), decode(block, values)
///     kKept                    reround of a row, if there are kernels for it
///     kWeighted                whether importance changes the fit
///     kLearnable               if decode is code · d, d the block's f16 scale
///     overflows(block)         where scales are not f16s named d, m or dmin: whether one was clamped
template <typename Format>
class BlockCodec final : public Codec {
  using Block = typename Format::Block;
  static_assert(std::is_trivially_copyable_v<Block>);
  static constexpr std::size_t kElements = Format::kElements, kParams = Format::kParams;

 public:
  BlockCodec()
      : Codec(
            Format::kName, kElements, true, requires { Format::kSearch; }) {}

  std::size_t row_bytes(std::int64_t cols) const override {
    check_cols(*this, cols);
    return static_cast<std::size_t>(cols) / kElements * sizeof(Block);
  }
  std::int64_t params_per_row(std::int64_t cols) const override {
    check_cols(*this, cols);
    return cols / static_cast<std::int64_t>(kElements) * static_cast<std::int64_t>(kParams);
  }

  void fit(std::span<const float> row, std::span<float> params) const override { fit_weighted(row, {}, params); }

  void fit_weighted(std::span<const float> row, std::span<const float> importance, std::span<float> params) const override {
    check_row(row.size(), params.size());
    if (!importance.empty()) check_size(*this, "importance of columns", row.size(), importance.size());
    const float* weights = importance.empty() || !Format::kWeighted ? nullptr : importance.data();
    float energy = 0;
    if (weights) {
      for (const float x : row) energy += x * x;
      energy /= static_cast<float>(row.size());
    }
    for (std::size_t b = 0; b * kElements < row.size(); ++b)
      Format::fit(row.data() + b * kElements, weights ? weights + b * kElements : nullptr, energy,
                  params.data() + b * kParams);
  }

  void round(std::span<const float> row, std::span<const float> params, std::span<std::byte> encoded) const override {
    check_row(row.size(), params.size());
    check_size(*this, "bytes of a row", row_bytes(static_cast<std::int64_t>(row.size())), encoded.size());
    for (std::size_t b = 0; b * kElements < row.size(); ++b) {
      Block block{};
      Format::round(row.data() + b * kElements, params.data() + b * kParams, block);
      std::memcpy(encoded.data() + b * sizeof(Block), &block, sizeof(Block));
    }
  }

  void reround(std::span<const float> row, std::span<std::byte> encoded) const override {
    check_size(*this, "bytes of a row", row_bytes(static_cast<std::int64_t>(row.size())), encoded.size());
    for (std::size_t i = 0; i < row.size(); i += kElements) {
      Block block = load(encoded, i);
      Format::reround(row.data() + i, block);
      std::memcpy(encoded.data() + i / kElements * sizeof(Block), &block, sizeof(Block));
    }
  }

  void reround_rows(const TensorView& values, std::span<std::byte> encoded) const override {
    if constexpr (requires { Format::kKept; }) {
      check_matrix(*this, values, encoded.size());
      const std::size_t bytes = row_bytes(values.cols());
      std::vector<float> row(static_cast<std::size_t>(values.cols()));
      for (std::int64_t r = 0; r < values.rows(); ++r) {
        widen_row(values, r, row);
        Format::kKept.in_use().round(row.data(), values.cols(),
                                     reinterpret_cast<unsigned char*>(encoded.data()) + static_cast<std::size_t>(r) * bytes);
      }
    } else {
      Codec::reround_rows(values, encoded);
    }
  }

  bool has_learnable_scales() const override {
    return requires { Format::kLearnable; };
  }

  void multiply_scales(std::span<std::byte> row, std::int64_t cols, std::span<const float> factors) const override {
    if constexpr (requires { Format::kLearnable; }) {
      check_size(*this, "bytes of a row", row_bytes(cols), row.size());
      check_size(*this, "factors", row.size() / sizeof(Block), factors.size());
      for (std::size_t b = 0; b < factors.size(); ++b) {
        Block block = load(row, b * kElements);
        block.d = to_f16(std::clamp(to_float(block.d) * factors[b], -65504.0f, 65504.0f));
        std::memcpy(row.data() + b * sizeof(Block), &block, sizeof(Block));
      }
    } else {
      Codec::multiply_scales(row, cols, factors);
    }
  }

  void group_values(std::span<const std::byte> row, std::int64_t cols, std::span<GroupValues> out) const override {
    if constexpr (requires { Format::kLearnable; }) {
      check_size(*this, "bytes of a row", row_bytes(cols), row.size());
      check_size(*this, "groups", row.size() / sizeof(Block), out.size());
      for (std::size_t b = 0; b < out.size(); ++b) {
        const float d = to_float(load(row, b * kElements).d);
        out[b] = {0.0f, d, static_cast<float>(Format::kLow) * d, static_cast<float>(Format::kHigh) * d};
      }
    } else {
      Codec::group_values(row, cols, out);
    }
  }

  void decode(std::span<const std::byte> encoded, std::span<float> row) const override {
    visit(encoded, row.size(), [&](const Block& block, std::size_t i) { Format::decode(block, row.data() + i); });
  }

  void codes(std::span<const std::byte> encoded, std::span<std::int32_t> out) const override {
    visit(encoded, out.size(), [&](const Block& block, std::size_t i) { Format::codes(block, out.data() + i); });
  }

  std::int64_t first_overflow(std::span<const std::byte> encoded, std::int64_t rows, std::int64_t cols) const override {
    check_size(*this, "encoded bytes", static_cast<std::size_t>(rows) * row_bytes(cols), encoded.size());
    for (std::size_t at = 0; at < encoded.size(); at += sizeof(Block))
      if (overflows(load(encoded, at / sizeof(Block) * kElements))) return static_cast<std::int64_t>(at / row_bytes(cols));
    return -1;
  }

  void encode_rows(const TensorView& values, std::span<std::byte> encoded) const override {
    encode_weighted(values, {}, encoded);
  }

  void encode_weighted(const TensorView& values, std::span<const float> importance,
                       std::span<std::byte> encoded) const override {
    check_matrix(*this, values, encoded.size());
    const std::size_t cols = static_cast<std::size_t>(values.cols());
    if (!importance.empty()) check_size(*this, "importance of columns", cols, importance.size());
    const RowKernels& kernels = Format::kRows.in_use();
    if (kernels.encode_f32 && (importance.empty() || !Format::kWeighted)) {
      encode_matrix(*this, kernels, kElements, values, encoded);
      return;
    }
    std::vector<float> row(cols), params(static_cast<std::size_t>(params_per_row(values.cols())));
    const std::size_t bytes = row_bytes(values.cols());
    for (std::int64_t r = 0; r < values.rows(); ++r) {
      widen_row(values, r, row);
      fast_fit(row, importance, params);
      fast_round(row, params, encoded.subspan(static_cast<std::size_t>(r) * bytes, bytes));
    }
  }

  void fit_rows(const TensorView& values, std::span<float> params) const override {
    const auto per_row = static_cast<std::size_t>(params_per_row(values.cols()));
    check_size(*this, "parameters", static_cast<std::size_t>(values.rows()) * per_row, params.size());
    std::vector<float> row(static_cast<std::size_t>(values.cols()));
    for (std::int64_t r = 0; r < values.rows(); ++r) {
      widen_row(values, r, row);
      fast_fit(row, {}, params.subspan(static_cast<std::size_t>(r) * per_row, per_row));
    }
  }

  void round_rows(const TensorView& values, std::span<const float> params, std::span<std::byte> encoded) const override {
    check_matrix(*this, values, encoded.size());
    const auto per_row = static_cast<std::size_t>(params_per_row(values.cols()));
    check_size(*this, "parameters", static_cast<std::size_t>(values.rows()) * per_row, params.size());
    const std::size_t bytes = row_bytes(values.cols());
    std::vector<float> row(static_cast<std::size_t>(values.cols()));
    for (std::int64_t r = 0; r < values.rows(); ++r) {
      const auto at = static_cast<std::size_t>(r);
      widen_row(values, r, row);
      fast_round(row, params.subspan(at * per_row, per_row), encoded.subspan(at * bytes, bytes));
    }
  }

  void decode_rows(std::span<const std::byte> encoded, const TensorView& out) const override {
    decode_matrix(*this, Format::kRows.in_use(), kElements, encoded, out);
  }

  CodeStats stats(std::span<const std::byte> encoded, std::span<const std::byte> earlier, std::int64_t rows,
                  std::int64_t cols) const override {
    if (Format::kRows.in_use().count)
      return count_matrix(*this, Format::kRows.in_use(), kElements, encoded, earlier, rows, cols);
    check_size(*this, "encoded bytes", static_cast<std::size_t>(rows) * row_bytes(cols), encoded.size());
    if (!earlier.empty()) check_size(*this, "earlier encoded bytes", encoded.size(), earlier.size());
    CodeStats sum{rows * cols, 0, 0};
    visit(encoded, static_cast<std::size_t>(rows * cols), [&](const Block& block, std::size_t i) {
      std::int32_t now[kElements], before[kElements];
      Format::codes(block, now);
      if (!earlier.empty()) Format::codes(load(earlier, i), before);
      for (std::size_t j = 0; j < kElements; ++j) {
        sum.changed += !earlier.empty() && now[j] != before[j];
        sum.saturated += now[j] == Format::kLow || now[j] == Format::kHigh;
      }
    });
    return sum;
  }

 private:
  static bool overflows(f16 half) { return overflows_f16(half.bits); }
  static bool overflows(std::uint16_t half) { return overflows_f16(half); }
  static bool overflows(const Block& block) {
    if constexpr (requires { Format::overflows(block); }) {
      return Format::overflows(block);
    } else {
      bool found = overflows(block.d);
      if constexpr (requires { block.m; }) found |= overflows(block.m);
      if constexpr (requires { block.dmin; }) found |= overflows(block.dmin);
      return found;
    }
  }

  // One row by the search's kernels where the format has them.
  void fast_fit(std::span<const float> row, std::span<const float> importance, std::span<float> params) const {
    if constexpr (requires { Format::kSearch; })
      Format::kSearch.in_use().fit(row.data(), importance.empty() ? nullptr : importance.data(),
                                   static_cast<std::int64_t>(row.size()), params.data());
    else
      fit_weighted(row, importance, params);
  }
  void fast_round(std::span<const float> row, std::span<const float> params, std::span<std::byte> encoded) const {
    if constexpr (requires { Format::kSearch; })
      Format::kSearch.in_use().round(row.data(), params.data(), static_cast<std::int64_t>(row.size()),
                                     reinterpret_cast<unsigned char*>(encoded.data()));
    else
      round(row, params, encoded);
  }

  void check_row(std::size_t cols, std::size_t params) const {
    check_size(*this, "parameters of a row", static_cast<std::size_t>(params_per_row(static_cast<std::int64_t>(cols))),
               params);
  }

  static Block load(std::span<const std::byte> encoded, std::size_t element) {
    Block block;
    std::memcpy(&block, encoded.data() + element / kElements * sizeof(Block), sizeof(Block));
    return block;
  }

  template <typename Visitor>
  void visit(std::span<const std::byte> encoded, std::size_t elements, Visitor&& visitor) const {
    check_size(*this, "encoded bytes", row_bytes(static_cast<std::int64_t>(elements)), encoded.size());
    for (std::size_t i = 0; i < elements; i += kElements) visitor(load(encoded, i), i);
  }
};

}  // namespace temper::quant
