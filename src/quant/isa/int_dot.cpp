// Products of 8-bit activations with integer weights. Integer sums are exact, and what follows them is done output by output
// in the order of int_dot.h without contraction: hence the same bits on every instruction set. All of it has internal
// linkage and calls no inline function of another header: see bits.h.
#include "quant/isa/int_dot.h"

#include "quant/isa/int_lanes.h"
#include "quant/isa/int_turned.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

// The unmasked intrinsics start from an undefined register, which GCC 12 warns about.
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

// ---- Vectors: lane n is a row of weights; kM rows of x at a time, as many as registers hold ----

#if defined(__AVX512VNNI__)
constexpr int kTileM = 6;
#elif defined(__AVXVNNI__)
constexpr int kTileM = 3;
#elif defined(__AVX2__)
constexpr int kTileM = 2;
#else
constexpr int kTileM = 1;
#endif
constexpr int kVectors = 2;
constexpr i64 kRows = kLanes * kVectors;

// dot += Σ over the four bytes of each lane of x (unsigned, the same in all lanes) times w (signed).
#if defined(__AVX512VNNI__)
using Weights = __m512i;
using Inputs = __m512i;
TEMPER_INLINE Weights weights_at(const i8* w) { return _mm512_loadu_si512(w); }
TEMPER_INLINE Inputs inputs_of(u32 four) { return _mm512_set1_epi32(static_cast<int>(four)); }
TEMPER_INLINE Ints multiply_add(Ints dot, Inputs x, Weights w) {
  return reinterpret_cast<Ints>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(dot), x, w));
}
#elif defined(__AVXVNNI__)
using Weights = __m256i;
using Inputs = __m256i;
TEMPER_INLINE Weights weights_at(const i8* w) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)); }
TEMPER_INLINE Inputs inputs_of(u32 four) { return _mm256_set1_epi32(static_cast<int>(four)); }
TEMPER_INLINE Ints multiply_add(Ints dot, Inputs x, Weights w) {
  return reinterpret_cast<Ints>(_mm256_dpbusd_avx_epi32(reinterpret_cast<__m256i>(dot), x, w));
}
#elif defined(__AVX2__) && !defined(__AVX512F__)
// In 16 bits, even and odd bytes apart: pairs of products of bytes would not fit the 16 bits in which an instruction adds
// them.
struct Weights {
  __m256i even, odd;
};
struct Inputs {
  __m256i even, odd;
};
TEMPER_INLINE Weights weights_at(const i8* w) {
  const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w));
  return {_mm256_srai_epi16(_mm256_slli_epi16(all, 8), 8), _mm256_srai_epi16(all, 8)};
}
TEMPER_INLINE Inputs inputs_of(u32 four) {
  return {_mm256_set1_epi32(static_cast<int>(four & 0x00ff00ffu)),
          _mm256_set1_epi32(static_cast<int>(four >> 8 & 0x00ff00ffu))};
}
TEMPER_INLINE Ints multiply_add(Ints dot, Inputs x, Weights w) {
  const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(x.even, w.even), _mm256_madd_epi16(x.odd, w.odd));
  return dot + reinterpret_cast<Ints>(sum);
}
#else
using Weights = Ints;
using Inputs = u32;
TEMPER_INLINE Weights weights_at(const i8* w) { return load_vector<Ints>(w); }
TEMPER_INLINE Inputs inputs_of(u32 four) { return four; }
TEMPER_INLINE Ints multiply_add(Ints dot, Inputs x, Weights w) {
  for (int j = 0; j < 4; ++j) dot += (w << (24 - 8 * j) >> 24) * static_cast<i32>(x >> (8 * j) & 255u);
  return dot;
}
#endif

// ---- Packing ----

constexpr i64 kStep = kRows < kPackRows ? kRows : kPackRows;  // rows packed at a time

/// out[q, r] = the q-th four bytes of row r, for kStep rows and `quads` fours; rows of `out` are R fours.
void turn(const i8* rows, i64 row_bytes, i64 quads, i8* out) {
  for (i64 q = 0; q < quads; ++q)
    for (i64 r = 0; r < kStep; ++r) __builtin_memcpy(out + (q * kRows + r) * 4, rows + r * row_bytes + 4 * q, 4);
}

#if defined(__AVX512VNNI__)
struct PanelIo : TurnedRows {
  i8* out;

  TEMPER_INLINE void put(i64 k, const Chunk& chunk, int offset) const { put_signed(k, chunk - offset); }
  TEMPER_INLINE void put_signed(i64 k, const Chunk& chunk) const {
    for (int q = 0; q < 4; ++q) __builtin_memcpy(out + (k / 4 + q) * kRows * 4, &chunk.four[q], sizeof(Fours));
  }
};

/// Codes of rows [first, first + 16), without passing through rows of bytes.
bool pack_codes_turned(const PackTask& t, const IntPanel& panel, i64 first) {
  if (!bytewise(t.format, t.cols)) return false;
  PanelIo io;
  io.set_rows(t, first);
  io.out = panel.codes + first * 4;
  unpack_bytewise(t.format, io, t.cols);
  for (i64 q = t.cols / 4; q < panel.groups * panel.quads; ++q) __builtin_memset(io.out + q * kRows * 4, 0, 64);
  return true;
}
#else
bool pack_codes_turned(const PackTask&, const IntPanel&, i64) { return false; }
#endif

void pack_codes(const PackTask& t, const IntPanel& panel, i64 first) {
  if (pack_codes_turned(t, panel, first)) return;
  const i64 row_bytes = panel.groups * panel.quads * 4;
  for (i64 r = 0; r < kStep; ++r) {
    i8* codes = t.scratch + r * row_bytes;
    const i64 cols = first + r < t.rows ? t.cols : 0;
    __builtin_memset(codes + cols, 0, static_cast<std::size_t>(row_bytes - cols));
    if (cols > 0) unpack_codes(t.format, t.weights + (first + r) * t.row_bytes, cols, codes);
  }
  turn(t.scratch, row_bytes, panel.groups * panel.quads, panel.codes + first * 4);
}

void pack(const PackTask& t, const IntPanel& panel) {
  // The outputs of rows that are missing are not looked at.
  for (i64 r = 0; r < t.rows; ++r)
    unpack_parameters(t.format, t.weights + r * t.row_bytes, t.cols,
                      {panel.scales + r, panel.minima ? panel.minima + r : nullptr, kRows});
  for (i64 first = 0; first < t.rows; first += kStep) pack_codes(t, panel, first);
  const Inputs ones = inputs_of(0x01010101u);
  for (i64 g = 0; g < panel.groups; ++g)
    for (int v = 0; v < kVectors; ++v) {
      Ints sum{};
      for (i64 q = 0; q < panel.quads; ++q)
        sum = multiply_add(sum, ones, weights_at(panel.codes + ((g * panel.quads + q) * kRows + v * kLanes) * 4));
      __builtin_memcpy(panel.sums + g * kRows + v * kLanes, &sum, sizeof(sum));
    }
}

// ---- Products ----

/// kM rows of x from row `m` on. kQuads: panel.quads, or 0.
template <int kM, int kQuads, bool kBlocks>
void tile(const IntTask& t, i64 m) {
  const IntPanel& p = t.panel;
  const i64 quads = kQuads ? kQuads : p.quads;
  const u8* x = t.x + m * t.x_stride;
  Floats totals[kM][kVectors] = {};
  const i8* codes = p.codes;
  for (i64 g = 0; g < p.groups; ++g) {
    Ints dots[kM][kVectors];
    for (int v = 0; v < kVectors; ++v) {
      const Ints sum = load_vector<Ints>(p.sums + g * kRows + v * kLanes);
      if (t.zeros) {
        for (int i = 0; i < kM; ++i) dots[i][v] = -(sum * broadcast(t.zeros[m + i]));
      } else {
        const Ints start = -(sum << 7);
        for (int i = 0; i < kM; ++i) dots[i][v] = start;
      }
    }
#pragma GCC unroll 8
    for (i64 q = 0; q < quads; ++q, codes += kRows * 4) {
      Weights w[kVectors];
      for (int v = 0; v < kVectors; ++v) w[v] = weights_at(codes + v * kLanes * 4);
#pragma GCC unroll 8
      for (int i = 0; i < kM; ++i) {
        const Inputs four = inputs_of(load<u32>(x + i * t.x_stride + 4 * q));
        for (int v = 0; v < kVectors; ++v) dots[i][v] = multiply_add(dots[i][v], four, w[v]);
      }
    }
    x += 4 * quads;
    const i64 block = g * quads / 8;  // of 32 elements
    for (int v = 0; v < kVectors; ++v) {
      const Floats scale = load_vector<Floats>(p.scales + g * kRows + v * kLanes);
      for (int i = 0; i < kM; ++i) {
        const Floats both = kBlocks ? scale * broadcast(t.x_scales[(m + i) * t.scale_stride + block]) : scale;
        totals[i][v] += __builtin_convertvector(dots[i][v], Floats) * both;
      }
      if (!p.minima) continue;
      const Floats minimum = load_vector<Floats>(p.minima + g * kRows + v * kLanes);
      for (int i = 0; i < kM; ++i) totals[i][v] += minimum * broadcast(t.x_sums[(m + i) * t.sum_stride + g]);
    }
  }
  for (int i = 0; i < kM; ++i) {
    if constexpr (!kBlocks)
      for (int v = 0; v < kVectors; ++v) totals[i][v] *= broadcast(t.x_scales[m + i]);
    write<kVectors>(t, m + i, 0, t.count, totals[i]);
  }
}

template <int kQuads, bool kBlocks>
void tiles(const IntTask& t) {
  i64 m = 0;
  for (; m + kTileM <= t.m; m += kTileM) tile<kTileM, kQuads, kBlocks>(t, m);
  if constexpr (kTileM > 4)
    for (; m + 4 <= t.m; m += 4) tile<4, kQuads, kBlocks>(t, m);
  if constexpr (kTileM > 2)
    for (; m + 2 <= t.m; m += 2) tile<2, kQuads, kBlocks>(t, m);
  for (; m < t.m; ++m) tile<1, kQuads, kBlocks>(t, m);
}

void product(const IntTask& t) {
  const bool blocks = t.scale_stride != 0;
  if (t.panel.quads == 4) return blocks ? tiles<4, true>(t) : tiles<4, false>(t);
  if (t.panel.quads == 8) return blocks ? tiles<8, true>(t) : tiles<8, false>(t);
  return blocks ? tiles<0, true>(t) : tiles<0, false>(t);
}

// ---- Activations ----

void to_unsigned(const signed char* codes, i64 n, u8* __restrict out) {
  for (i64 k = 0; k < n; ++k) out[k] = static_cast<u8>(codes[k] ^ -128);
}

void group_sums(const u8* codes, i64 n, i64 group, i32 zero, float* sums) {
  for (i64 g = 0; g < n / group; ++g) {
    i32 sum = 0;
    for (i64 k = 0; k < group; ++k) sum += codes[g * group + k];
    sums[g] = static_cast<float>(sum - zero * static_cast<i32>(group));
  }
}

}  // namespace

#if defined(__AVX512VNNI__) && !defined(__clang__)
bool few_rows_product(const PackTask& w, const IntTask& t, const FewMemory& memory);  // int_few_rows.cpp
constexpr FewRowsKernel kFewRowsKernel = few_rows_product;
#else
constexpr FewRowsKernel kFewRowsKernel = nullptr;
#endif

extern const IntTable kIntTable;
const IntTable kIntTable = {kRows, pack, product, kFewRowsKernel, to_unsigned, group_sums};

}  // namespace temper::quant::TEMPER_ISA_LEVEL
