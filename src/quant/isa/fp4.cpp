#include "quant/isa/fp4.h"

#include "quant/isa/tables.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

constexpr int kFp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

template <typename T>
void decode_mxfp4(const u8* block, i64 cols, i64, T* values) {
  for (i64 i = 0; i < cols; i += 32, block += 17) {
    const u32 e = block[0];
    decode_pairs(kFp4, block + 1, float_of(e < 2 ? 0x00200000u << e : (e - 1) << 23), values + i);
  }
}

/// Half an E4M3 number without sign; 127 counts as 0.
inline float half_scale(u32 d) {
  const u32 exponent = d >> 3 & 15, mantissa = d & 7;
  if (d == 0x7f) return 0;
  if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-10f;
  return float_of((exponent + 119) << 23 | mantissa << 20);
}

template <typename T>
void decode_nvfp4(const u8* block, i64 cols, i64, T* values) {
  using Pair = std::uint64_t __attribute__((vector_size(16)));
  for (i64 i = 0; i < cols; i += 64, block += 36)
    for (int s = 0; s < 4; ++s) {
      const auto packed = load<std::uint64_t>(block + 4 + s * 8);
      const Pair nibbles = {packed, packed >> 4};
      decode_affine(looked_up(kFp4, reinterpret_cast<Bytes>(nibbles) & 15), half_scale(block[s]), -0.0f,
                    values + i + s * 16);
    }
}

}  // namespace

const RowKernels kGgufMxfp4Rows = {nullptr, nullptr, decode_mxfp4<float>, decode_mxfp4<u16>, nullptr};
const RowKernels kGgufNvfp4Rows = {nullptr, nullptr, decode_nvfp4<float>, decode_nvfp4<u16>, nullptr};

}  // namespace temper::quant::TEMPER_ISA_LEVEL
