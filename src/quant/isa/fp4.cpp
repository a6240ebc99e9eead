#include "quant/isa/fp4.h"

#include "quant/isa/groups.h"
#include "quant/isa/scaled_elements.h"
#include "quant/isa/tables.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

constexpr int kFp4[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// 2^(e - 128), subnormal for 0 and 1.
inline float mx_scale(u32 e) { return float_of(e < 2 ? 0x00200000u << e : (e - 1) << 23); }

/// Half an E4M3 number without sign; 127 counts as 0.
inline float half_scale(u32 d) {
  const u32 exponent = d >> 3 & 15, mantissa = d & 7;
  if (d == 0x7f) return 0;
  if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-10f;
  return float_of((exponent + 119) << 23 | mantissa << 20);
}

/// The E4M3 number without sign nearest to x, rounded at the next bit; 448 from 256 on.
inline u32 unsigned_e4m3(float x) {
  if (!(x > 0)) return 0;
  if (x < 0x1p-6f) {
    const auto subnormal = static_cast<u32>(x * 512.0f + 0.5f);
    return subnormal < 7 ? subnormal : 7;
  }
  const u32 code = (((bits_of(x < 448.0f ? x : 448.0f) >> 19) + 1) >> 1) - (120u << 3);
  return code < 0x78 ? code : 0x7e;
}

/// Codes of the values nearest to kCount elements, the first of those as near. The halves of the table mirror each other:
/// the nearest is found by magnitude, and zero has no sign.
template <int kCount, typename T>
void nearest_codes(const T* values, float scale, u8* codes) {
  for (int j = 0; j < kCount; j += kLanes) {
    const Uints bits = as_bits(load_values(values + j));
    const Floats magnitude = as_floats(bits & 0x7fffffffu);
    Floats least = magnitude;
    Ints best{};
    for (int k = 1; k < 8; ++k) {
      const float level = static_cast<float>(kFp4[k]) * scale;
      const Floats off = as_floats(as_bits(level - magnitude) & 0x7fffffffu);
      const Ints nearer = off < least;
      best = nearer ? Ints{} + k : best;
      least = nearer ? off : least;
    }
    store_low_bytes(best | ((best != 0) & reinterpret_cast<Ints>(bits >> 28 & 8u)), codes + j);
  }
}

struct Mxfp4 {
  static constexpr i64 kElements = 32, kBytes = 17;

  template <typename T>
  static void fit(const T* values, u8* block) {
    constexpr float kLargest = 0x1.fffffep127f;
    const float largest = max_magnitude(values, 32), finite = largest < kLargest ? largest : kLargest;
    const i32 e = largest > 0 ? static_cast<i32>(__builtin_floorf(__builtin_log2f(finite))) + 125 : 0;
    block[0] = static_cast<u8>(e);
  }
  template <typename T>
  static void round(const T* values, u8* block) {
    u8 codes[32];
    nearest_codes<32>(values, mx_scale(block[0]), codes);
    put_nibbles<16>(codes, block + 1);
  }
};

struct Nvfp4 {
  static constexpr i64 kElements = 64, kBytes = 36;

  template <typename T>
  static void fit(const T* values, u8* block) {
    for (int s = 0; s < 4; ++s) block[s] = static_cast<u8>(unsigned_e4m3(max_magnitude(values + s * 16, 16) / 6.0f));
  }
  template <typename T>
  static void round(const T* values, u8* block) {
    for (int s = 0; s < 4; ++s) {
      u8 codes[16];
      nearest_codes<16>(values + s * 16, half_scale(block[s]), codes);
      put_nibbles<8>(codes, block + 4 + s * 8);
    }
  }
};

template <typename Format, typename T>
void encode(const T* values, i64 cols, i64, u8* block) {
  for (i64 i = 0; i < cols; i += Format::kElements, block += Format::kBytes) {
    Format::fit(values + i, block);
    Format::round(values + i, block);
  }
}

template <typename Format>
void reround(const float* values, i64 cols, u8* block) {
  for (i64 i = 0; i < cols; i += Format::kElements, block += Format::kBytes) Format::round(values + i, block);
}

template <typename T>
void decode_mxfp4(const u8* block, i64 cols, i64, T* values) {
  for (i64 i = 0; i < cols; i += 32, block += 17) decode_pairs(kFp4, block + 1, mx_scale(block[0]), values + i);
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

const RowKernels kGgufMxfp4Rows = {encode<Mxfp4, float>, encode<Mxfp4, u16>, decode_mxfp4<float>, decode_mxfp4<u16>,
                                   nullptr};
const RowKernels kGgufNvfp4Rows = {encode<Nvfp4, float>, encode<Nvfp4, u16>, decode_nvfp4<float>, decode_nvfp4<u16>,
                                   nullptr};
const KeptKernels kGgufMxfp4Kept = {reround<Mxfp4>};
const KeptKernels kGgufNvfp4Kept = {reround<Nvfp4>};

}  // namespace temper::quant::TEMPER_ISA_LEVEL
