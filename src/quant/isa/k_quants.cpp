#include "quant/isa/k_quants.h"

#include "quant/isa/groups.h"
#include "quant/k_formats.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

/// Scales and minima of the 8 sub-blocks of a q4_k or q5_k superblock, which starts with f16 d, f16 dmin, u8 scales[12].
struct Affines {
  float scale[8], bias[8];

  explicit Affines(const u8* block) {
    // Four sub-blocks at a time, a byte each.
    const u32 a = load<u32>(block + 4), b = load<u32>(block + 8), c = load<u32>(block + 12);
    const u32 packed[4] = {a & 0x3f3f3f3fu, (c & 0x0f0f0f0fu) | (a >> 2 & 0x30303030u),  //
                           b & 0x3f3f3f3fu, (c >> 4 & 0x0f0f0f0fu) | (b >> 2 & 0x30303030u)};
    u8 codes[16];
    __builtin_memcpy(codes, packed, sizeof(codes));
    const float d = from_half(load<u16>(block)), dmin = from_half(load<u16>(block + 2));
    for (int s = 0; s < 8; ++s) {
      scale[s] = d * static_cast<float>(codes[s]);
      bias[s] = -(dmin * static_cast<float>(codes[8 + s]));
    }
  }
};

/// Bits n and up of each byte, whose upper bits are the neighbour's: for use under a mask that leaves 8 - n bits at most.
inline Bytes down(Bytes bytes, int n) {
  using Words = u16 __attribute__((vector_size(16)));
  return reinterpret_cast<Bytes>(reinterpret_cast<Words>(bytes) >> n);
}
/// Bit n of each byte, moved to bit 4.
inline Bytes fifth(Bytes bytes, int n) {
  using Words = u16 __attribute__((vector_size(16)));
  return (n < 4 ? reinterpret_cast<Bytes>(reinterpret_cast<Words>(bytes) << (4 - n)) : down(bytes, n - 4)) & 16;
}

template <typename T>
void decode_q4_k(const u8* block, i64 cols, i64, T* values) {
  for (i64 i = 0; i < cols; i += kSuper, block += 144) {
    const Affines affine(block);
    for (int s = 0; s < 8; s += 2)
      for (int half = 0; half < 32; half += 16) {
        const Bytes packed = load<Bytes>(block + 16 + s * 16 + half);
        T* out = values + i + s * 32 + half;
        decode_affine(packed & 15, affine.scale[s], affine.bias[s], out);
        decode_affine(packed >> 4, affine.scale[s + 1], affine.bias[s + 1], out + 32);
      }
  }
}

template <typename T>
void decode_q5_k(const u8* block, i64 cols, i64, T* values) {
  for (i64 i = 0; i < cols; i += kSuper, block += 176) {
    const Affines affine(block);
    for (int half = 0; half < 32; half += 16) {
      const Bytes high = load<Bytes>(block + 16 + half);
      for (int s = 0; s < 8; s += 2) {
        const Bytes packed = load<Bytes>(block + 48 + s * 16 + half);
        T* out = values + i + s * 32 + half;
        decode_affine((packed & 15) | fifth(high, s), affine.scale[s], affine.bias[s], out);
        decode_affine(packed >> 4 | fifth(high, s + 1), affine.scale[s + 1], affine.bias[s + 1], out + 32);
      }
    }
  }
}

template <typename T>
void decode_q2_k(const u8* block, i64 cols, i64, T* values) {
  for (i64 i = 0; i < cols; i += kSuper, block += 84) {
    const float d = from_half(load<u16>(block + 80)), dmin = from_half(load<u16>(block + 82));
    float scale[16], bias[16];
    for (int s = 0; s < 16; ++s) {
      scale[s] = d * static_cast<float>(block[s] & 15);
      bias[s] = -(dmin * static_cast<float>(block[s] >> 4));
    }
    for (int s = 0; s < 16; ++s) {
      const Bytes packed = load<Bytes>(block + 16 + s / 8 * 32 + s % 2 * 16);
      decode_affine(down(packed, s % 8 / 2 * 2) & 3, scale[s], bias[s], values + i + s * 16);
    }
  }
}

template <typename T>
void decode_q3_k(const u8* block, i64 cols, i64, T* values) {
  for (i64 i = 0; i < cols; i += kSuper, block += 110) {
    const float d = from_half(load<u16>(block + 108));
    // Four sub-blocks at a time, a byte each.
    const u32 a = load<u32>(block + 96), b = load<u32>(block + 100), high = load<u32>(block + 104);
    const u32 packed_scales[4] = {
        (a & 0x0f0f0f0fu) | (high << 4 & 0x30303030u), (b & 0x0f0f0f0fu) | (high << 2 & 0x30303030u),
        (a >> 4 & 0x0f0f0f0fu) | (high & 0x30303030u), (b >> 4 & 0x0f0f0f0fu) | (high >> 2 & 0x30303030u)};
    u8 codes[16];
    __builtin_memcpy(codes, packed_scales, sizeof(codes));
    float scale[16];
    for (int s = 0; s < 16; ++s) scale[s] = d * static_cast<float>(codes[s] - 32);
    for (int half = 0; half < 32; half += 16) {
      const Bytes third = load<Bytes>(block + half);
      for (int part = 0; part < 2; ++part) {
        const Bytes packed = load<Bytes>(block + 32 + part * 32 + half);
        for (int n = 0; n < 4; ++n) {
          const int s = part * 8 + n * 2 + half / 16;
          const Bytes code = (down(packed, 2 * n) & 3) | (fifth(third, part * 4 + n) >> 2);
          decode_affine(code - 4, scale[s], -0.0f, values + i + s * 16);
        }
      }
    }
  }
}

template <typename T>
void decode_q6_k(const u8* block, i64 cols, i64, T* values) {
  for (i64 i = 0; i < cols; i += kSuper, block += 210) {
    const float d = from_half(load<u16>(block + 208));
    float scale[16];
    for (int s = 0; s < 16; ++s) scale[s] = d * static_cast<float>(static_cast<i8>(block[192 + s]));
    for (int part = 0; part < 16; part += 8)  // sub-blocks of one half of the superblock
      for (int s = part; s < part + 2; ++s) {
        const u8* low = block + part * 8 + s % 2 * 16;
        const Bytes a = load<Bytes>(low), b = load<Bytes>(low + 32), high = load<Bytes>(block + 128 + part * 4 + s % 2 * 16);
        T* out = values + i + s * 16;
        decode_affine(((a & 15) | (high & 3) << 4) - 32, scale[s], -0.0f, out);
        decode_affine(((b & 15) | (high & 12) << 2) - 32, scale[s + 2], -0.0f, out + 32);
        decode_affine((a >> 4 | (high & 48)) - 32, scale[s + 4], -0.0f, out + 64);
        decode_affine((b >> 4 | (high >> 6) << 4) - 32, scale[s + 6], -0.0f, out + 96);
      }
  }
}

template <typename K>
CodeCounts count(const u8* encoded, const u8* earlier, i64 cols, i64) {
  const auto unpack = [](const u8* bytes, u8* codes) {
    typename K::Params params;
    K::get(load<typename K::Block>(bytes), params, codes);
  };
  ByteSums sums;
  for (i64 i = 0; i < cols; i += kSuper, encoded += sizeof(typename K::Block), earlier += sizeof(typename K::Block)) {
    u8 now[kSuper], before[kSuper];
    unpack(encoded, now);
    unpack(earlier, before);
    for (int j = 0; j < kSuper; j += 32) {
      const Bytes a[2] = {load<Bytes>(now + j), load<Bytes>(now + j + 16)};
      const Bytes b[2] = {load<Bytes>(before + j), load<Bytes>(before + j + 16)};
      count_codes(a, b, 0, K::kHigh - K::kLow, sums);
    }
  }
  sums.flush();
  return sums.total;
}

}  // namespace

const RowKernels kQ2KRows = {nullptr, nullptr, decode_q2_k<float>, decode_q2_k<u16>, count<Q2K>};
const RowKernels kQ3KRows = {nullptr, nullptr, decode_q3_k<float>, decode_q3_k<u16>, count<Q3K>};
const RowKernels kQ4KRows = {nullptr, nullptr, decode_q4_k<float>, decode_q4_k<u16>, count<Q4K>};
const RowKernels kQ5KRows = {nullptr, nullptr, decode_q5_k<float>, decode_q5_k<u16>, count<Q5K>};
const RowKernels kQ6KRows = {nullptr, nullptr, decode_q6_k<float>, decode_q6_k<u16>, count<Q6K>};

}  // namespace temper::quant::TEMPER_ISA_LEVEL
