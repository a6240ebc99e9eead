#include "quant/isa/blocks.h"

#include "quant/isa/groups.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

/// The inverse of a ggml scale; `overflow` where it is infinite, chosen so that every code becomes the one of q4_0.cpp and
/// q8_0.cpp.
inline float ggml_inverse(float d, float overflow) {
  const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
  return (bits_of(inverse) & 0x7fffffffu) == 0x7f800000u ? overflow : inverse;
}

struct Q40 {
  static constexpr int kBits = 4;
  static constexpr i32 kLow = -8, kHigh = 7;
  static constexpr i64 kScaleBytes = 2;

  template <typename T>
  static float fit(const T* values, i64, u8* encoded) {
    const float d = first_largest(values) / -8.0f;
    store(encoded, half_bits(d));
    return ggml_inverse(d, float_of(0x7fc00000u));
  }
  static i32 code(float x, float inverse) {
    const float t = x * inverse + 8.5f;
    const float positive = t > 0.0f ? t : 0.0f;  // NaN becomes 0
    const float clamped = positive < 15.0f ? positive : 15.0f;
    return static_cast<i32>(clamped) - 8;
  }
  static float scale(const u8* encoded) { return from_half(load<u16>(encoded)); }
};

struct Q80 {
  static constexpr int kBits = 8;
  static constexpr i32 kLow = -127, kHigh = 127;
  static constexpr i64 kScaleBytes = 2;

  template <typename T>
  static float fit(const T* values, i64, u8* encoded) {
    const float d = max_magnitude(values, kChunk) / 127.0f;
    store(encoded, half_bits(d));
    return ggml_inverse(d, 0.0f);
  }
  /// Half away from zero: (trunc(2m) + 1) / 2 of the magnitude m, where doubling is exact.
  static i32 code(float x, float inverse) {
    const u32 bits = bits_of(x * inverse);
    const float doubled = 2.0f * float_of(bits & 0x7fffffffu);
    const float clamped = doubled < 254.0f ? doubled : 254.0f;
    const i32 rounded = (static_cast<i32>(clamped) + 1) >> 1;
    const i32 sign = static_cast<i32>(bits) >> 31;
    return (rounded ^ sign) - sign;
  }
  static float scale(const u8* encoded) { return from_half(load<u16>(encoded)); }
};

// ---- Codes with a scale and perhaps a minimum ----

/// 32 codes, signed bytes, whose values are code * scale + bias. A format without bias has -0, which changes no sum.
struct Affine {
  Bytes codes[2];
  float scale, bias;
};

struct Q41 {
  static constexpr int kBytes = 20;
  static Affine load_block(const u8* block) {
    const Bytes packed = load<Bytes>(block + 4);
    return {{packed & 15, packed >> 4}, from_half(load<u16>(block)), from_half(load<u16>(block + 2))};
  }
};

/// 16 where a bit of the two bytes is set, else 0; bit j of them in byte j.
#if defined(__AVX512BW__)
inline Bytes fifth_bits(const u8* bits) { return reinterpret_cast<Bytes>(_mm_maskz_set1_epi8(load<u16>(bits), 16)); }
#else
inline Bytes fifth_bits(const u8* bits) {
  constexpr Bytes kBit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const u8 a = bits[0], b = bits[1];
  const Bytes spread = {a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b};
  return reinterpret_cast<Bytes>((spread & kBit) != 0) & 16;
}
#endif

struct Q50 {
  static constexpr int kBytes = 22;
  static Affine load_block(const u8* block) {
    const Bytes packed = load<Bytes>(block + 6);
    return {{((packed & 15) | fifth_bits(block + 2)) - 16, ((packed >> 4) | fifth_bits(block + 4)) - 16},
            from_half(load<u16>(block)),
            -0.0f};
  }
};

struct Q51 {
  static constexpr int kBytes = 24;
  static Affine load_block(const u8* block) {
    const Bytes packed = load<Bytes>(block + 8);
    return {{(packed & 15) | fifth_bits(block + 4), (packed >> 4) | fifth_bits(block + 6)},
            from_half(load<u16>(block)),
            from_half(load<u16>(block + 2))};
  }
};

template <typename Format, typename T>
void decode_blocks(const u8* encoded, i64 cols, i64, T* values) {
  for (i64 i = 0; i < cols; i += kChunk, encoded += Format::kBytes) {
    const Affine block = Format::load_block(encoded);
    decode_affine(block.codes[0], block.scale, block.bias, values + i);
    decode_affine(block.codes[1], block.scale, block.bias, values + i + 16);
  }
}

template <typename Format>
constexpr RowKernels read_only() {
  return {nullptr, nullptr, decode_blocks<Format, float>, decode_blocks<Format, u16>, nullptr};
}

}  // namespace

const RowKernels kQ40Rows = kernels_of<Q40>();
const RowKernels kQ80Rows = kernels_of<Q80>();
const RowKernels kQ41Rows = read_only<Q41>();
const RowKernels kQ50Rows = read_only<Q50>();
const RowKernels kQ51Rows = read_only<Q51>();

}  // namespace temper::quant::TEMPER_ISA_LEVEL
