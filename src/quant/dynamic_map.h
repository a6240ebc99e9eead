// bitsandbytes' dynamic maps (functional.create_dynamic_map): 256 values, denser towards 0 over seven decades. For absmaxes
// of absmaxes and for optimizer states (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization").
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace temper::quant {

class DynamicMap {
 public:
  /// Signed: values in (-1, 1], of which 127 are below 0. Unsigned: in [0, 1].
  explicit DynamicMap(bool is_signed);

  std::span<const float, 256> values() const { return values_; }  ///< Ascending.
  /// The nearest value's index, the lower of two as near. What is beyond an end gives that end; NaN gives 0.
  std::uint8_t code(float x) const;

 private:
  std::array<float, 256> values_{};
  std::array<float, 256> midpoints_{};       // between a value and the next; beyond the last: infinity
  std::array<std::uint8_t, 65536> first_{};  // by the upper half of a float's bits: the lowest code of any such float;
                                             // none of them is more than one higher
};

const DynamicMap& signed_dynamic_map();
const DynamicMap& unsigned_dynamic_map();

/// Values of a block (of any length) as codes of their quotients by the largest magnitude, which is returned; the quotient
/// is x · (1 / absmax), as bitsandbytes has it. Where all are 0 or subnormal, the codes' values are 0.
float encode_block(const DynamicMap& map, std::span<const float> x, std::span<std::uint8_t> codes);
void decode_block(const DynamicMap& map, std::span<const std::uint8_t> codes, float absmax, std::span<float> x);

}  // namespace temper::quant
