// Encoded rows as bytes: the integer that a scale multiplies, and the scales and minima of its groups.
#pragma once

#include "quant/isa/common.h"
#include "quant/isa/int_dot.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

#define TEMPER_INLINE inline __attribute__((always_inline))

inline float half_at(const u8* bytes) {
#if defined(__F16C__)
  return _cvtsh_ss(load<u16>(bytes));
#else
  return from_half(load<u16>(bytes));
#endif
}

// ---- Parameters: scales and minima of a row's groups ----

inline float scale_at(ScaleType type, const u8* bytes) {
  if (type == ScaleType::F32) return load<float>(bytes);
  return type == ScaleType::F16 ? half_at(bytes) : float_of(static_cast<u32>(load<u16>(bytes)) << 16);
}

inline i64 scale_size(const IntFormat& format) { return format.scale == ScaleType::F32 ? 4 : 2; }
/// Bytes of a group of a scaled format, before its codes and in all.
inline i64 group_header(const IntFormat& format) {
  return scale_size(format) * (format.minima ? 2 : 1) + (format.zero_points ? 1 : 0);
}
inline i64 group_size(const IntFormat& format) {
  return group_header(format) + (format.rule == IntRule::Nibbles ? format.group / 2 : format.group);
}

/// Where the parameters of a row go: those of group g at [g * stride].
struct RowParameters {
  float *scales, *minima;
  i64 stride;
};

inline void scaled_parameters(const IntFormat& format, const u8* row, i64 cols, const RowParameters& out) {
  for (i64 g = 0; g * format.group < cols; ++g, row += group_size(format)) {
    out.scales[g * out.stride] = scale_at(format.scale, row);
    if (format.minima) out.minima[g * out.stride] = scale_at(format.scale, row + scale_size(format));
  }
}

/// Blocks of 32 that start with an f16 scale and, with minima, an f16 minimum.
template <i64 kBytes, bool kMinima>
void block_parameters(const u8* row, i64 cols, const RowParameters& out) {
  for (i64 g = 0; g < cols / 32; ++g) {
    out.scales[g * out.stride] = half_at(row + g * kBytes);
    if constexpr (kMinima) out.minima[g * out.stride] = half_at(row + g * kBytes + 2);
  }
}

/// q4_k, q5_k: 8 sub-blocks of six bits each.
template <i64 kBytes>
void affine_parameters(const u8* b, i64 cols, const RowParameters& out) {
  for (i64 k = 0, g = 0; k < cols; k += 256, g += 8, b += kBytes) {
    const u32 first = load<u32>(b + 4), second = load<u32>(b + 8), third = load<u32>(b + 12);
    const u32 packed[4] = {first & 0x3f3f3f3fu, (third & 0x0f0f0f0fu) | (first >> 2 & 0x30303030u),  //
                           second & 0x3f3f3f3fu, (third >> 4 & 0x0f0f0f0fu) | (second >> 2 & 0x30303030u)};
    u8 codes[16];
    __builtin_memcpy(codes, packed, sizeof(codes));
    const float d = half_at(b), dmin = half_at(b + 2);
    for (int s = 0; s < 8; ++s) {
      out.scales[(g + s) * out.stride] = d * static_cast<float>(codes[s]);
      out.minima[(g + s) * out.stride] = -(dmin * static_cast<float>(codes[8 + s]));
    }
  }
}

inline void q2_k_parameters(const u8* b, i64 cols, const RowParameters& out) {
  for (i64 k = 0, g = 0; k < cols; k += 256, g += 16, b += 84) {
    const float d = half_at(b + 80), dmin = half_at(b + 82);
    for (int s = 0; s < 16; ++s) {
      out.scales[(g + s) * out.stride] = d * static_cast<float>(b[s] & 15);
      out.minima[(g + s) * out.stride] = -(dmin * static_cast<float>(b[s] >> 4));
    }
  }
}

inline void q3_k_parameters(const u8* b, i64 cols, const RowParameters& out) {
  for (i64 k = 0, g = 0; k < cols; k += 256, g += 16, b += 110) {
    const float d = half_at(b + 108);
    for (int s = 0; s < 16; ++s) {
      const int low = s < 8 ? b[96 + s] & 15 : b[96 + s - 8] >> 4, high = b[104 + s % 4] >> (2 * (s / 4)) & 3;
      out.scales[(g + s) * out.stride] = d * static_cast<float>((low | high << 4) - 32);
    }
  }
}

inline void q6_k_parameters(const u8* b, i64 cols, const RowParameters& out) {
  for (i64 k = 0, g = 0; k < cols; k += 256, g += 16, b += 210) {
    const float d = half_at(b + 208);
    for (int s = 0; s < 16; ++s) out.scales[(g + s) * out.stride] = d * static_cast<float>(static_cast<i8>(b[192 + s]));
  }
}

inline void unpack_parameters(const IntFormat& format, const u8* row, i64 cols, const RowParameters& out) {
  switch (format.rule) {
    case IntRule::None: return;
    case IntRule::Nibbles:
    case IntRule::Bytes: return scaled_parameters(format, row, cols, out);
    case IntRule::Q4_0: return block_parameters<18, false>(row, cols, out);
    case IntRule::Q4_1: return block_parameters<20, true>(row, cols, out);
    case IntRule::Q5_0: return block_parameters<22, false>(row, cols, out);
    case IntRule::Q5_1: return block_parameters<24, true>(row, cols, out);
    case IntRule::Q8_0: return block_parameters<34, false>(row, cols, out);
    case IntRule::Q2_K: return q2_k_parameters(row, cols, out);
    case IntRule::Q3_K: return q3_k_parameters(row, cols, out);
    case IntRule::Q4_K: return affine_parameters<144>(row, cols, out);
    case IntRule::Q5_K: return affine_parameters<176>(row, cols, out);
    case IntRule::Q6_K: return q6_k_parameters(row, cols, out);
  }
}

// ---- Codes ----
//
// Written for chunks of 16 bytes: `io.get(at)` is those at that place of the encoded row, `io.put(k, chunk, offset)` takes
// codes k … k + 15, which are the chunk's bytes less the offset, `io.put_signed(k, chunk)` codes that are stored as they
// are. `io.bits(at)` are the 32 bits there as two chunks, 16 where a bit is set. What is done to a chunk is done to each
// byte alone, so that a chunk may stand for many rows at once.

/// What the unsigned codes of a format are more than those that its scale multiplies (and its zero point is added to).
constexpr int code_offset(IntRule rule) {
  switch (rule) {
    case IntRule::Nibbles:
    case IntRule::Q4_0: return 8;
    case IntRule::Q5_0: return 16;
    case IntRule::Q3_K: return 4;
    case IntRule::Q6_K: return 32;
    case IntRule::Bytes:
    case IntRule::Q8_0: return 128;  // stored signed
    default: return 0;
  }
}

template <typename Chunk>
struct ChunkPair {
  Chunk low, high;
};

struct RowIo {
  const u8* row;
  i8* codes;
  Bytes get(i64 at) const { return load<Bytes>(row + at); }
  ChunkPair<Bytes> bits(i64 at) const {
    const Bytes bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    u8 bytes[32];
    for (int j = 0; j < 32; ++j) bytes[j] = row[at + j / 8];
    const auto sixteen = [&](const u8* of) { return reinterpret_cast<Bytes>((load<Bytes>(of) & bit) != 0) & 16; };
    return {sixteen(bytes), sixteen(bytes + 16)};
  }
  void put(i64 k, Bytes chunk, int offset) const { put_signed(k, chunk - static_cast<u8>(offset)); }
  void put_signed(i64 k, Bytes chunk) const { __builtin_memcpy(codes + k, &chunk, sizeof(chunk)); }
};

/// 32 codes of four bits, the low nibbles first.
template <typename Io>
TEMPER_INLINE void nibble_codes(const Io& io, i64 at, i64 k, int offset) {
  const auto packed = io.get(at);
  io.put(k, packed & 15, offset);
  io.put(k + 16, packed >> 4, offset);
}

template <i64 kBytes, i64 kAt, typename Io>
TEMPER_INLINE void nibble_blocks(const Io& io, i64 cols, int offset) {
  for (i64 b = 0; b < cols / 32; ++b) nibble_codes(io, b * kBytes + kAt, b * 32, offset);
}

/// The same with bit j of the four bytes before them as bit 4 of code j.
template <i64 kBytes, i64 kAt, typename Io>
TEMPER_INLINE void five_bit_blocks(const Io& io, i64 cols, int offset) {
  for (i64 b = 0; b < cols / 32; ++b) {
    const auto packed = io.get(b * kBytes + kAt);
    const auto fifth = io.bits(b * kBytes + kAt - 4);
    io.put(b * 32, (packed & 15) | fifth.low, offset);
    io.put(b * 32 + 16, packed >> 4 | fifth.high, offset);
  }
}

template <typename Io>
TEMPER_INLINE void scaled_codes(const IntFormat& format, const Io& io, i64 cols) {
  i64 at = group_header(format);
  for (i64 k = 0; k < cols; k += format.group, at += group_size(format))
    if (format.rule == IntRule::Nibbles)
      for (i64 i = 0; i < format.group; i += 32) nibble_codes(io, at + i / 2, k + i, code_offset(IntRule::Nibbles));
    else
      for (i64 i = 0; i < format.group; i += 16) io.put_signed(k + i, io.get(at + i));
}

/// Bit `from` of every byte, and those above it, at bit `to`: those of the mask. Bytes are shifted in wider lanes, where a
/// mask is needed anyway.
template <typename Chunk>
TEMPER_INLINE Chunk moved(const Chunk& chunk, int from, int to, u8 mask) {
  return (from < to ? chunk << (to - from) : chunk >> (from - to)) & mask;
}

template <typename Io>
TEMPER_INLINE void q2_k_codes(const Io& io, i64 cols) {
  for (i64 k = 0, at = 16; k < cols; k += 256, at += 84)
    for (int part = 0; part < 4; ++part) {  // 16 bytes each
      const auto packed = io.get(at + 16 * part);
      const i64 first = k + part / 2 * 128 + part % 2 * 16;
      io.put(first, packed & 3, 0);
      io.put(first + 32, packed >> 2 & 3, 0);
      io.put(first + 64, packed >> 4 & 3, 0);
      io.put(first + 96, packed >> 6, 0);
    }
}

template <typename Io>
TEMPER_INLINE void q3_k_codes(const Io& io, i64 cols) {
  for (i64 k = 0, at = 0; k < cols; k += 256, at += 110)
    for (int half = 0; half < 2; ++half) {
      const auto third = io.get(at + 16 * half);
#pragma GCC unroll 2
      for (int part = 0; part < 2; ++part) {
        const auto packed = io.get(at + 32 + 32 * part + 16 * half);
#pragma GCC unroll 4
        for (int n = 0; n < 4; ++n)
          io.put(k + 128 * part + 32 * n + 16 * half, (packed >> (2 * n) & 3) | moved(third, 4 * part + n, 2, 4),
                 code_offset(IntRule::Q3_K));
      }
    }
}

template <typename Io>
TEMPER_INLINE void q4_k_codes(const Io& io, i64 cols) {
  for (i64 k = 0, at = 16; k < cols; k += 256, at += 144)
    for (int part = 0; part < 8; ++part) {
      const auto packed = io.get(at + 16 * part);
      const i64 first = k + part / 2 * 64 + part % 2 * 16;
      io.put(first, packed & 15, 0);
      io.put(first + 32, packed >> 4, 0);
    }
}

template <typename Io>
TEMPER_INLINE void q5_k_codes(const Io& io, i64 cols) {
  for (i64 k = 0, at = 16; k < cols; k += 256, at += 176)
    for (int half = 0; half < 2; ++half) {
      const auto fifth = io.get(at + 16 * half);
#pragma GCC unroll 4
      for (int n = 0; n < 4; ++n) {
        const auto packed = io.get(at + 32 + 32 * n + 16 * half);
        const i64 first = k + 64 * n + 16 * half;
        io.put(first, (packed & 15) | moved(fifth, 2 * n, 4, 16), 0);
        io.put(first + 32, packed >> 4 | moved(fifth, 2 * n + 1, 4, 16), 0);
      }
    }
}

template <typename Io>
TEMPER_INLINE void q6_k_codes(const Io& io, i64 cols) {
  for (i64 k = 0, at = 0; k < cols; k += 256, at += 210)
    for (int part = 0; part < 4; ++part) {  // 16 bytes of either half of the superblock
      const int half = part / 2, side = part % 2 * 16;
      const auto high = io.get(at + 128 + 32 * half + side);
      const auto first = io.get(at + 64 * half + side), second = io.get(at + 64 * half + 32 + side);
      const i64 to = k + 128 * half + side;
      constexpr int kOffset = code_offset(IntRule::Q6_K);
      io.put(to, (first & 15) | moved(high, 0, 4, 48), kOffset);
      io.put(to + 32, (second & 15) | moved(high, 2, 4, 48), kOffset);
      io.put(to + 64, first >> 4 | (high & 48), kOffset);
      io.put(to + 96, second >> 4 | moved(high, 6, 4, 48), kOffset);
    }
}

/// True if all that is done to the codes is done byte by byte, in whole chunks, alike for every row.
inline bool bytewise(const IntFormat& format, i64 cols) { return !format.zero_points && cols % 16 == 0; }

template <typename Io>
TEMPER_INLINE void unpack_bytewise(const IntFormat& format, const Io& io, i64 cols) {
  switch (format.rule) {
    case IntRule::Nibbles:
    case IntRule::Bytes: return scaled_codes(format, io, cols);
    case IntRule::Q4_0: return nibble_blocks<18, 2>(io, cols, code_offset(IntRule::Q4_0));
    case IntRule::Q4_1: return nibble_blocks<20, 4>(io, cols, 0);
    case IntRule::Q5_0: return five_bit_blocks<22, 6>(io, cols, code_offset(IntRule::Q5_0));
    case IntRule::Q5_1: return five_bit_blocks<24, 8>(io, cols, 0);
    case IntRule::Q8_0:
      for (i64 k = 0; k < cols; k += 16) io.put_signed(k, io.get(k / 32 * 34 + 2 + k % 32));
      return;
    case IntRule::Q2_K: return q2_k_codes(io, cols);
    case IntRule::Q3_K: return q3_k_codes(io, cols);
    case IntRule::Q4_K: return q4_k_codes(io, cols);
    case IntRule::Q5_K: return q5_k_codes(io, cols);
    case IntRule::Q6_K: return q6_k_codes(io, cols);
    case IntRule::None: return;
  }
}

/// The codes of one row.
inline void unpack_codes(const IntFormat& format, const u8* row, i64 cols, i8* codes) {
  const RowIo io{row, codes};
  if (bytewise(format, cols)) return unpack_bytewise(format, io, cols);
  i64 at = group_header(format);
  for (i64 k = 0; k < cols; k += format.group, at += group_size(format)) {
    if (format.rule == IntRule::Bytes) {
      __builtin_memcpy(codes + k, row + at, static_cast<std::size_t>(format.group));
      continue;
    }
    const int offset = code_offset(IntRule::Nibbles) + static_cast<i8>(row[at - 1]);
    for (i64 i = 0; i < format.group; i += 32) nibble_codes(io, at + i / 2, k + i, offset);
  }
}

}  // namespace
}  // namespace temper::quant::TEMPER_ISA_LEVEL
