// Base of the formats that encode: groups of elements with one scale each, a fast path by row kernels.
#pragma once

#include "quant/codec.h"
#include "quant/row_kernels.h"

namespace temper::quant {

/// An encoded row is a sequence of groups, each {scale; codes}. Derived classes hold the scalar definition; this one runs
/// the kernels of the instruction set in use.
class GroupCodec : public Codec {
 public:
  std::size_t row_bytes(std::int64_t cols) const final;
  std::int64_t params_per_row(std::int64_t cols) const final;
  void encode_rows(const TensorView& values, std::span<std::byte> encoded) const final;
  void decode_rows(std::span<const std::byte> encoded, const TensorView& out) const final;
  CodeStats stats(std::span<const std::byte> encoded, std::span<const std::byte> earlier, std::int64_t rows,
                  std::int64_t cols) const final;

 protected:
  GroupCodec(std::string name, std::int64_t group, const PerIsa<RowKernels>& kernels, std::size_t scale_bytes, int bits)
      : Codec(std::move(name), group, true), kernels_(kernels), scale_bytes_(scale_bytes), bits_(bits) {}

  /// Elements of a group in a row of `cols`.
  std::int64_t group_of(std::int64_t cols) const { return group() == 0 ? cols : group(); }
  std::size_t group_bytes(std::int64_t elements) const {
    return scale_bytes_ + static_cast<std::size_t>(elements * bits_ / 8);
  }
  /// Checks the sizes that the scalar functions were given.
  void check_row(std::size_t cols, std::size_t params, std::size_t encoded) const;

 private:
  const PerIsa<RowKernels>& kernels_;
  std::size_t scale_bytes_;
  int bits_;
};

}  // namespace temper::quant
