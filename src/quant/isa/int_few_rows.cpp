// Integer products of a few rows of activations: weights are multiplied as they are unpacked, sixteen rows in the lanes of a
// register, and stored nowhere. The same numbers as int_dot.cpp's, bit for bit: integer sums are exact however they are
// split, and what follows them is the same.
//
// Here weights are the unsigned operand and activations the signed one, so that the offset of a format's codes, and the
// activations' zero point z, come out of sums over activations alone, or over codes:
//     Σ (a - z) · (u - offset) = Σ a · u - offset · Σ (a - z) - z · Σ u        u: unsigned codes, a: signed ones
#if defined(__AVX512VNNI__) && !defined(__clang__)  // clang 14 takes more than twenty minutes for it
#include "quant/isa/int_lanes.h"
#include "quant/isa/int_turned.h"

// The unmasked intrinsics start from an undefined register, which GCC 12 warns about.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

constexpr i64 kRows = 16;

/// What is unpacked at once: elements (0: a group), and how many groups they are.
struct Span {
  i64 elements, bytes;
  int groups;
};
constexpr Span span_of(IntRule rule) {
  switch (rule) {
    case IntRule::Q4_0: return {32, 18, 1};
    case IntRule::Q4_1: return {32, 20, 1};
    case IntRule::Q5_0: return {32, 22, 1};
    case IntRule::Q5_1: return {32, 24, 1};
    case IntRule::Q8_0: return {32, 34, 1};
    case IntRule::Q2_K: return {256, 84, 16};
    case IntRule::Q3_K: return {256, 110, 16};
    case IntRule::Q4_K: return {256, 144, 8};
    case IntRule::Q5_K: return {256, 176, 8};
    case IntRule::Q6_K: return {256, 210, 16};
    default: return {0, 0, 1};
  }
}

/// Reads the bytes in order, for their lines' sake. Weights come from memory, once a token, and prefetchers do not see
/// through reads of sixteen rows in turn; instructions that ask for lines ahead made it slower (Zen 4).
void touch(const u8* bytes, i64 n) {
  for (i64 line = 0; line < n; line += 64) static_cast<void>(*static_cast<const volatile u8*>(bytes + line));
}

/// Takes chunks of codes and multiplies them at once: dots[m, g] += Σ a · u, and with kSums sums[g] += Σ u.
template <IntRule kRule, int kM, bool kSums>
struct FewIo {
  static constexpr Span kSpan = span_of(kRule);
  TurnedRows rows;
  i64 at = 0;             ///< Bytes of a row before those that are read.
  const i8* x = nullptr;  ///< [kM, …], rows stride apart: those that go with these.
  i64 stride = 0;
  Ints (*dots)[kSpan.groups] = nullptr;
  Ints* sums = nullptr;

  TEMPER_INLINE Chunk get(i64 from) const { return rows.get(at + from); }
  TEMPER_INLINE ChunkPair<Chunk> bits(i64 from) const { return rows.bits(at + from); }
  TEMPER_INLINE void put_signed(i64 k, const Chunk& chunk) const {
    put(k, chunk.each([](Fours v) __attribute__((always_inline)) { return v ^ 128; }), 128);
  }
  TEMPER_INLINE void put(i64 k, const Chunk& chunk, int) const {
    const i64 g = kSpan.groups == 1 ? 0 : k / (kSpan.elements / kSpan.groups);
#pragma GCC unroll 8
    for (int m = 0; m < kM; ++m) {
      Ints dot = dots[m][g];
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q)
        dot = multiply_add(dot, chunk.four[q], load<i32>(reinterpret_cast<const u8*>(x + m * stride + k + 4 * q)));
      dots[m][g] = dot;
    }
    if constexpr (kSums) {
      constexpr bool kSmall = code_offset(kRule) != 128;  // four codes fit a byte
      if constexpr (kSmall)
        sums[g] = multiply_add(sums[g], (chunk.four[0] + chunk.four[1]) + (chunk.four[2] + chunk.four[3]), 0x01010101);
      else
        for (int q = 0; q < 4; ++q) sums[g] = multiply_add(sums[g], chunk.four[q], 0x01010101);
    }
  }

 private:
  static TEMPER_INLINE Ints multiply_add(Ints dot, Fours codes, i32 four) {
    return reinterpret_cast<Ints>(
        _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(dot), reinterpret_cast<__m512i>(codes), _mm512_set1_epi32(four)));
  }
};

/// `m` rows of x as they are multiplied; those that the task does not have are zeros.
struct Input {
  const i8* codes;  ///< Signed: [m, stride]
  i64 stride;
  const i32* sums;            ///< [groups, m]: of the codes less the zero point, times the offset of the weights' codes.
  const float* scales;        ///< [groups, m]; 1 where a token has one scale.
  const float* minimum_sums;  ///< [groups, m]
  i32 zeros[kFewRows] = {};
  float token_scales[kFewRows];

  Input(const IntTask& t, i64 m, const FewMemory& memory, const IntFormat& format, i64 cols)
      : codes(memory.codes),
        stride(t.x_stride),
        sums(memory.sums),
        scales(memory.scales),
        minimum_sums(memory.minimum_sums) {
    const i32 offset = format.zero_points ? 1 : code_offset(format.rule);
    for (i64 i = 0; i < m; ++i) {
      const bool there = i < t.m, token = t.scale_stride == 0;
      zeros[i] = there && t.zeros ? t.zeros[i] - 128 : 0;
      token_scales[i] = there && token ? t.x_scales[i] : 1.0f;
      i8* row = memory.codes + i * stride;
      if (there)
        for (i64 k = 0; k < cols; ++k) row[k] = static_cast<i8>(t.x[i * t.x_stride + k] ^ 128);
      else
        __builtin_memset(row, 0, static_cast<std::size_t>(cols));
      for (i64 g = 0; g < cols / format.group; ++g) {
        i32 sum = 0;
        for (i64 k = g * format.group; k < (g + 1) * format.group; ++k) sum += row[k];
        memory.sums[g * m + i] = offset * (sum - zeros[i] * static_cast<i32>(format.group));
        memory.scales[g * m + i] = there && !token ? t.x_scales[i * t.scale_stride + g * format.group / 32] : 1.0f;
        if (format.minima) memory.minimum_sums[g * m + i] = there ? t.x_sums[i * t.sum_stride + g] : 0.0f;
      }
    }
  }
};

// ---- Parameters of 16 rows, a lane each ----

TEMPER_INLINE Floats halves(Uints bits) {  // the lower half of each lane
  return reinterpret_cast<Floats>(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(bits))));
}
TEMPER_INLINE Uints words(const Chunk& chunk, int n) { return reinterpret_cast<Uints>(chunk.four[n]); }
/// Byte n of 16.
TEMPER_INLINE Uints byte(const Chunk& chunk, int n) { return words(chunk, n / 4) >> (8 * (n % 4)) & 255u; }
TEMPER_INLINE Floats floats(Uints codes) { return __builtin_convertvector(reinterpret_cast<Ints>(codes), Floats); }
TEMPER_INLINE Ints signed_byte(Uints codes) { return reinterpret_cast<Ints>(codes << 24) >> 24; }

template <int kGroups>
struct Parameters {
  Floats scales[kGroups], minima[kGroups];
  Ints zero_point;  ///< More than the unsigned codes' zero by the format's offset.
};

TEMPER_INLINE void load_scaled(const IntFormat& format, const Chunk& header, Parameters<1>& out) {
  const Uints first = words(header, 0), second = words(header, 1);
  const bool wide = format.scale == ScaleType::F32;
  const auto scale = [&](Uints upper, Uints lower) __attribute__((always_inline)) {
    return format.scale == ScaleType::BF16 ? reinterpret_cast<Floats>(upper) : halves(lower);
  };
  out.scales[0] = wide ? reinterpret_cast<Floats>(first) : scale(first << 16, first);
  if (format.minima) out.minima[0] = wide ? reinterpret_cast<Floats>(second) : scale(first & 0xffff0000u, first >> 16);
  if (format.zero_points) out.zero_point = signed_byte(wide ? second : first >> 16) + code_offset(IntRule::Nibbles);
}

template <typename Io>
TEMPER_INLINE void load_q2_k(const Io& io, Parameters<16>& out) {
  const Chunk codes = io.get(0);
  const Uints factors = words(io.get(68), 3);
  const Floats d = halves(factors), dmin = halves(factors >> 16);
#pragma GCC unroll 16
  for (int s = 0; s < 16; ++s) {
    out.scales[s] = d * floats(byte(codes, s) & 15u);
    out.minima[s] = -(dmin * floats(byte(codes, s) >> 4));
  }
}

template <typename Io>
TEMPER_INLINE void load_q3_k(const Io& io, Parameters<16>& out) {
  const Chunk tail = io.get(94);  // two bytes before the twelve of the scales, and d
  const Floats d = halves(words(tail, 3) >> 16);
#pragma GCC unroll 16
  for (int s = 0; s < 16; ++s) {
    const Uints low = byte(tail, 2 + s % 8) >> (s / 8 * 4) & 15u, high = byte(tail, 10 + s % 4) >> (s / 4 * 2) & 3u;
    out.scales[s] = d * (floats(low | high << 4) - 32.0f);
  }
}

/// q4_k, q5_k.
template <typename Io>
TEMPER_INLINE void load_affine(const Io& io, Parameters<8>& out) {
  const Chunk header = io.get(0);
  const Floats d = halves(words(header, 0)), dmin = halves(words(header, 0) >> 16);
  const Uints first = words(header, 1), second = words(header, 2), third = words(header, 3);
  const Uints packed[4] = {first & 0x3f3f3f3fu, (third & 0x0f0f0f0fu) | (first >> 2 & 0x30303030u), second & 0x3f3f3f3fu,
                           (third >> 4 & 0x0f0f0f0fu) | (second >> 2 & 0x30303030u)};
#pragma GCC unroll 8
  for (int s = 0; s < 8; ++s) {
    out.scales[s] = d * floats(packed[s / 4] >> (s % 4 * 8) & 255u);
    out.minima[s] = -(dmin * floats(packed[2 + s / 4] >> (s % 4 * 8) & 255u));
  }
}

template <typename Io>
TEMPER_INLINE void load_q6_k(const Io& io, Parameters<16>& out) {
  const Chunk codes = io.get(192);
  const Floats d = halves(words(io.get(194), 3) >> 16);
#pragma GCC unroll 16
  for (int s = 0; s < 16; ++s) out.scales[s] = d * __builtin_convertvector(signed_byte(byte(codes, s)), Floats);
}

template <IntRule kRule, typename Io, int kGroups>
TEMPER_INLINE void load_parameters(const IntFormat& format, const Io& io, Parameters<kGroups>& out) {
  if constexpr (kRule == IntRule::Nibbles || kRule == IntRule::Bytes) {
    load_scaled(format, io.get(0), out);
  } else if constexpr (kRule == IntRule::Q2_K) {
    load_q2_k(io, out);
  } else if constexpr (kRule == IntRule::Q3_K) {
    load_q3_k(io, out);
  } else if constexpr (kRule == IntRule::Q4_K || kRule == IntRule::Q5_K) {
    load_affine(io, out);
  } else if constexpr (kRule == IntRule::Q6_K) {
    load_q6_k(io, out);
  } else {
    const Uints header = words(io.get(0), 0);
    out.scales[0] = halves(header);
    if (format.minima) out.minima[0] = halves(header >> 16);
  }
}

// ---- Products ----

template <IntRule kRule, int kM, bool kZeros>
void few_rows(const PackTask& w, const IntTask& t, const Input& x) {
  constexpr Span kSpan = span_of(kRule);
  const i64 elements = kSpan.elements ? kSpan.elements : w.format.group;
  const i64 bytes = kSpan.bytes ? kSpan.bytes : group_size(w.format);
  IntFormat format = w.format;
  format.rule = kRule;
  FewIo<kRule, kM, kZeros> io;
  io.stride = x.stride;
  for (i64 first = 0; first < w.rows; first += kRows) {
    const i64 count = w.rows - first < kRows ? w.rows - first : kRows;
    touch(w.weights + first * w.row_bytes, count * w.row_bytes);
    io.rows.set_rows(w, first);
    io.at = 0;
    Floats totals[kM] = {};
    for (i64 k = 0, g = 0; k < w.cols; k += elements, io.at += bytes) {
      Ints dots[kM][kSpan.groups] = {}, sums[kSpan.groups] = {};
      io.x = x.codes + k;
      io.dots = dots;
      io.sums = sums;
      Parameters<kSpan.groups> parameters;
      load_parameters<kRule>(format, io, parameters);
      unpack_bytewise(format, io, elements);
      for (int s = 0; s < kSpan.groups; ++s, ++g)
#pragma GCC unroll 8
        for (int m = 0; m < kM; ++m) {
          Ints dot = dots[m][s];
          if (format.zero_points)
            dot -= parameters.zero_point * broadcast(x.sums[g * kM + m]);
          else if (code_offset(kRule) != 0)
            dot -= broadcast(x.sums[g * kM + m]);
          if constexpr (kZeros) dot -= sums[s] * broadcast(x.zeros[m]);
          totals[m] += __builtin_convertvector(dot, Floats) * (parameters.scales[s] * broadcast(x.scales[g * kM + m]));
          if (format.minima) totals[m] += parameters.minima[s] * broadcast(x.minimum_sums[g * kM + m]);
        }
    }
    for (int m = 0; m < kM && m < t.m; ++m) {
      totals[m] *= broadcast(x.token_scales[m]);
      write<1>(t, m, first, count, &totals[m]);
    }
  }
}

template <IntRule kRule, bool kZeros>
void few_rows_of(const PackTask& w, const IntTask& t, const FewMemory& memory) {
  const i64 m = t.m <= 2 ? t.m : t.m <= 4 ? 4 : kFewRows;
  const Input x(t, m, memory, w.format, w.cols);
  if (m == 1) return few_rows<kRule, 1, kZeros>(w, t, x);
  if (m == 2) return few_rows<kRule, 2, kZeros>(w, t, x);
  if (m == 4) return few_rows<kRule, 4, kZeros>(w, t, x);
  return few_rows<kRule, kFewRows, kZeros>(w, t, x);
}

template <IntRule kRule>
bool few_rows_with(const PackTask& w, const IntTask& t, const FewMemory& memory) {
  if (!t.zeros) {
    few_rows_of<kRule, false>(w, t, memory);
  } else if constexpr (span_of(kRule).groups == 1) {
    few_rows_of<kRule, true>(w, t, memory);
  } else {
    return false;  // superblocks go with llama.cpp's grids, which have no zero points
  }
  return true;
}

}  // namespace

bool few_rows_product(const PackTask& w, const IntTask& t, const FewMemory& memory);
bool few_rows_product(const PackTask& w, const IntTask& t, const FewMemory& memory) {
  if (t.m > kFewRows || w.cols % 16 != 0) return false;
  switch (w.format.rule) {
    case IntRule::None: return false;
    case IntRule::Nibbles: return few_rows_with<IntRule::Nibbles>(w, t, memory);
    case IntRule::Bytes: return few_rows_with<IntRule::Bytes>(w, t, memory);
    case IntRule::Q4_0: return few_rows_with<IntRule::Q4_0>(w, t, memory);
    case IntRule::Q4_1: return few_rows_with<IntRule::Q4_1>(w, t, memory);
    case IntRule::Q5_0: return few_rows_with<IntRule::Q5_0>(w, t, memory);
    case IntRule::Q5_1: return few_rows_with<IntRule::Q5_1>(w, t, memory);
    case IntRule::Q8_0: return few_rows_with<IntRule::Q8_0>(w, t, memory);
    case IntRule::Q2_K: return few_rows_with<IntRule::Q2_K>(w, t, memory);
    case IntRule::Q3_K: return few_rows_with<IntRule::Q3_K>(w, t, memory);
    case IntRule::Q4_K: return few_rows_with<IntRule::Q4_K>(w, t, memory);
    case IntRule::Q5_K: return few_rows_with<IntRule::Q5_K>(w, t, memory);
    case IntRule::Q6_K: return few_rows_with<IntRule::Q6_K>(w, t, memory);
  }
  return false;
}

}  // namespace temper::quant::TEMPER_ISA_LEVEL
#endif
