// Sixteen encoded rows side by side: four neighbouring bytes of every row in a lane of their own.
#pragma once

#include "quant/isa/int_unpack.h"

#if defined(__AVX512VNNI__)
namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

using Fours = u8 __attribute__((vector_size(64)));

/// 16 bytes of each of 16 rows, turned: four bytes of every row, four times.
struct Chunk {
  Fours four[4];

  template <typename Op>
  TEMPER_INLINE Chunk each(Op&& op) const {
    return {{op(four[0]), op(four[1]), op(four[2]), op(four[3])}};
  }
  friend TEMPER_INLINE Chunk operator&(const Chunk& x, int mask) {
    return x.each([&](Fours v) { return v & static_cast<u8>(mask); });
  }
  friend TEMPER_INLINE Chunk operator-(const Chunk& x, int offset) {
    return x.each([&](Fours v) { return v - static_cast<u8>(offset); });
  }
  friend TEMPER_INLINE Chunk operator>>(const Chunk& x, int n) {
    return x.each([&](Fours v) { return v >> n; });
  }
  friend TEMPER_INLINE Chunk operator<<(const Chunk& x, int n) {
    return x.each([&](Fours v) { return v << n; });
  }
  friend TEMPER_INLINE Chunk operator|(const Chunk& x, const Chunk& y) {
    return {{x.four[0] | y.four[0], x.four[1] | y.four[1], x.four[2] | y.four[2], x.four[3] | y.four[3]}};
  }
};

/// Reads of int_unpack.h from 16 rows at once.
struct TurnedRows {
  const u8* rows[16];

  /// Rows first … first + 15; those that are missing repeat the last one.
  TEMPER_INLINE void set_rows(const PackTask& t, i64 first) {
    for (int r = 0; r < 16; ++r) rows[r] = t.weights + (first + r < t.rows ? first + r : t.rows - 1) * t.row_bytes;
  }
  TEMPER_INLINE Chunk get(i64 at) const {
    const __m512i a = four_rows(0, at), b = four_rows(1, at), c = four_rows(2, at), d = four_rows(3, at);
    const __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
    const __m512i ab2 = _mm512_unpackhi_epi32(a, b), cd2 = _mm512_unpackhi_epi32(c, d);
    const auto bytes = [](__m512i x) { return reinterpret_cast<Fours>(x); };
    return {{bytes(_mm512_unpacklo_epi64(ab, cd)), bytes(_mm512_unpackhi_epi64(ab, cd)),
             bytes(_mm512_unpacklo_epi64(ab2, cd2)), bytes(_mm512_unpackhi_epi64(ab2, cd2))}};
  }
  /// Reads 16 bytes, too.
  TEMPER_INLINE ChunkPair<Chunk> bits(i64 at) const {
    const __m512i words = reinterpret_cast<__m512i>(get(at).four[0]);
    // Byte n of each row in all four of its bytes, of which two quads of elements take four bits each.
    const auto quad = [&](int q) __attribute__((always_inline)) {
      const __m512i from = _mm512_add_epi8(_mm512_broadcast_i32x4(_mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0)),
                                           _mm512_set1_epi8(static_cast<char>(q / 2)));
      const __m512i bit = _mm512_set1_epi32(q % 2 == 0 ? 0x08040201 : static_cast<int>(0x80402010u));
      const __mmask64 set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(words, from), bit);
      return reinterpret_cast<Fours>(_mm512_maskz_mov_epi8(set, _mm512_set1_epi8(16)));
    };
    return {{{quad(0), quad(1), quad(2), quad(3)}}, {{quad(4), quad(5), quad(6), quad(7)}}};
  }

 private:
  TEMPER_INLINE __m512i four_rows(int first, i64 at) const {
    const auto one = [&](int r) __attribute__((always_inline)) {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[r] + at));
    };
    __m512i x = _mm512_castsi128_si512(one(first));
    x = _mm512_inserti32x4(x, one(first + 4), 1);
    x = _mm512_inserti32x4(x, one(first + 8), 2);
    return _mm512_inserti32x4(x, one(first + 12), 3);
  }
};

}  // namespace
}  // namespace temper::quant::TEMPER_ISA_LEVEL
#endif
