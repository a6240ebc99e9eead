#include "quant/isa/int_sym.h"

#include "quant/isa/groups.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

template <int kBits_>
struct IntSym {
  static constexpr int kBits = kBits_;
  static constexpr i32 kLow = -(1 << (kBits - 1)), kHigh = -kLow - 1;  ///< Ends of the codes' range.
  static constexpr i64 kScaleBytes = 4;

  template <typename T>
  static float fit(const T* values, i64 n, u8* encoded) {
    constexpr float kSmallestNormal = 0x1p-126f;
    const float scale = max_magnitude(values, n) / (static_cast<float>(kHigh) + 0.5f);
    const float clamped = scale > kSmallestNormal ? scale : kSmallestNormal;
    store(encoded, clamped);
    return 1.0f / clamped;
  }
  /// Nearest even: adding 1.5 * 2^23 leaves the integer in the low bits; |x * inverse| <= 127.5 and a little.
  static i32 code(float x, float inverse) {
    constexpr float kShift = 12582912.0f;
    const i32 q = static_cast<i32>(bits_of(x * inverse + kShift) - bits_of(kShift));
    const i32 low = q < kLow ? kLow : q;
    return low > kHigh ? kHigh : low;
  }
  static float scale(const u8* encoded) { return load<float>(encoded); }
};

}  // namespace

const RowKernels kInt4SymRows = kernels_of<IntSym<4>>();
const RowKernels kInt8SymRows = kernels_of<IntSym<8>>();

}  // namespace temper::quant::TEMPER_ISA_LEVEL
