#include "quant/isa/ternary.h"

#include "quant/isa/common.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

constexpr i64 kBlock = 256;

/// The top base-3 digit of fractions in 256ths, less one.
inline Bytes top_digit(Bytes fraction) { return reinterpret_cast<Bytes>(-1 - (fraction > 85) - (fraction > 170)); }

template <typename T>
void decode_tq1(const u8* block, i64 cols, i64, T* values) {
  constexpr Bytes kPowers = {1, 1, 1, 1, 3, 3, 3, 3, 9, 9, 9, 9, 27, 27, 27, 27};
  for (i64 i = 0; i < cols; i += kBlock, block += 54) {
    const float d = from_half(load<u16>(block + 52));
    T* out = values + i;
    for (int run = 0; run < 3; ++run) {  // 16 bytes each, the first two of which interleave
      Bytes fraction = load<Bytes>(block + run * 16);
      const int first = run < 2 ? run * 16 : 160, apart = run < 2 ? 32 : 16;
      for (int n = 0; n < 5; ++n, fraction *= 3) decode_affine(top_digit(fraction), d, -0.0f, out + first + n * apart);
    }
    u8 last[16];
    for (int n = 0; n < 4; ++n) __builtin_memcpy(last + n * 4, block + 48, 4);
    decode_affine(top_digit(load<Bytes>(last) * kPowers), d, -0.0f, out + 240);
  }
}

template <typename T>
void decode_tq2(const u8* block, i64 cols, i64, T* values) {
  for (i64 i = 0; i < cols; i += kBlock, block += 66) {
    const float d = from_half(load<u16>(block + 64));
    for (int s = 0; s < 16; ++s) {
      const Bytes packed = load<Bytes>(block + s / 8 * 32 + s % 2 * 16);
      decode_affine((packed >> s % 8 / 2 * 2 & 3) - 1, d, -0.0f, values + i + s * 16);
    }
  }
}

}  // namespace

const RowKernels kTq1Rows = {nullptr, nullptr, decode_tq1<float>, decode_tq1<u16>, nullptr};
const RowKernels kTq2Rows = {nullptr, nullptr, decode_tq2<float>, decode_tq2<u16>, nullptr};

}  // namespace temper::quant::TEMPER_ISA_LEVEL
