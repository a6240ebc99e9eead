// Every format of scaled_format.h as a codec.
#pragma once

#include <vector>

#include "quant/codec.h"
#include "quant/isa/scaled.h"
#include "quant/scaled_format.h"
#include "quant/static_range.h"

namespace temper::quant {

class ScaledCodec final : public Codec {
 public:
  explicit ScaledCodec(const ScaledFormat& format);

  const ScaledFormat& format() const { return format_; }
  bool has_own_kernels() const { return own_kernels_ != nullptr; }
  /// What a row stores beside its codes, for writers of files: each group's scale as decode applies it, or the bytes it is
  /// stored in (E8M0, E4M3, dynamic code), its zero point (integers; Tinygemm: the float), and the row's header.
  struct Stored {
    std::vector<float> scales, shifts;
    std::vector<std::int32_t> zeros;
    std::vector<std::uint8_t> scale_bytes;  ///< scale_bytes() of each group, as they lie.
    std::vector<std::byte> header;
  };
  Stored stored(std::span<const std::byte> encoded, std::int64_t cols) const;

  /// An encoded matrix in parts, for files that store them apart; rows one after another. Together they are the encoding:
  /// put_together(take_apart(x)) is x, bit for bit (but for padding bits, which are zero).
  struct Parts {
    std::vector<std::byte> headers;   ///< header_bytes of each row.
    std::vector<std::byte> scales;    ///< scale_bytes of each group, as they lie: [rows, groups].
    std::vector<std::byte> zeros;     ///< zero_bytes of each group: i8 or, of Tinygemm, the type of the scale.
    std::vector<std::uint8_t> codes;  ///< [rows, cols], a byte each: integers in two's complement, others as indices.
  };
  Parts take_apart(std::span<const std::byte> encoded, std::int64_t rows, std::int64_t cols) const;
  /// Throws LogicError where a part has another size than the matrix needs. Codes keep their low bits() bits.
  std::vector<std::byte> put_together(const Parts& parts, std::int64_t rows, std::int64_t cols) const;

  /// Rows of activations in a format whose range is given, with that range.
  void encode_in_range(const StaticRange& range, const TensorView& values, std::span<std::byte> encoded) const;

  bool has_learnable_scales() const override;
  void multiply_scales(std::span<std::byte> row, std::int64_t cols, std::span<const float> factors) const override;
  void group_values(std::span<const std::byte> row, std::int64_t cols, std::span<GroupValues> out) const override;

  std::size_t row_bytes(std::int64_t cols) const override;
  std::size_t repeated_bytes(std::int64_t cols) const override;
  std::int64_t params_per_row(std::int64_t cols) const override;
  void fit(std::span<const float> row, std::span<float> params) const override;
  void round(std::span<const float> row, std::span<const float> params, std::span<std::byte> encoded) const override;
  void reround(std::span<const float> row, std::span<std::byte> encoded) const override;
  void decode(std::span<const std::byte> encoded, std::span<float> row) const override;
  bool joins_rows() const override { return format_.sharing != Sharing::None; }
  void join(std::span<float> params, std::int64_t rows, std::int64_t cols) const override;
  void group_params(std::span<const float> params, std::int64_t cols, std::int64_t g, std::span<float> out) const override;
  void fit_rows(const TensorView& values, std::span<float> params) const override;
  void round_rows(const TensorView& values, std::span<const float> params, std::span<std::byte> encoded) const override;
  void reround_rows(const TensorView& values, std::span<std::byte> encoded) const override;
  void encode_rows(const TensorView& values, std::span<std::byte> encoded) const override;
  void decode_rows(std::span<const std::byte> encoded, const TensorView& out) const override;
  std::int64_t first_overflow(std::span<const std::byte> encoded, std::int64_t rows, std::int64_t cols) const override;
  void codes(std::span<const std::byte> encoded, std::span<std::int32_t> out) const override;
  CodeStats stats(std::span<const std::byte> encoded, std::span<const std::byte> earlier, std::int64_t rows,
                  std::int64_t cols) const override;

  /// The two codes at the ends of the format's range, as `codes` gives them.
  std::pair<std::int32_t, std::int32_t> end_codes() const;

 private:
  std::int64_t group_of(std::int64_t cols) const { return group() == 0 ? cols : group(); }
  std::int64_t groups_of(std::int64_t cols) const { return cols / group_of(cols); }
  /// Where group g of an encoded row has its codes.
  std::size_t codes_at(std::int64_t g, std::int64_t cols) const;
  const RowKernels* own_kernels() const { return own_kernels_ ? &own_kernels_->in_use() : nullptr; }
  void fit_row(const TensorView& values, std::int64_t r, std::vector<Extent>& extents, std::span<float> params) const;
  void round_row(const TensorView& values, std::int64_t r, std::span<const float> params, std::byte* encoded) const;
  void check_row(std::size_t cols, std::size_t params, std::size_t encoded) const;

  ScaledFormat format_;
  const PerIsa<RowKernels>* own_kernels_;  ///< Whole rows, two to three times as fast as runs of groups; or null.
};

/// The codec as one of these, or null.
inline const ScaledCodec* as_scaled(const Codec* codec) { return dynamic_cast<const ScaledCodec*>(codec); }

}  // namespace temper::quant
