// In three steps: arithmetic and rounding of a chunk of elements to raw codes, one code in each byte, then packing; and
// back. The first is plain loops that compilers vectorise; bytes are packed in vectors of 16 and in 64-bit words.
#include "quant/isa/scaled.h"

#include "quant/isa/common.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

using u64 = std::uint64_t;

// ---- Extents ----

inline i32 magnitude_of(float x) { return static_cast<i32>(bits_of(x) & 0x7fffffffu); }
inline i16 magnitude_of(u16 x) { return static_cast<i16>(x & 0x7fff); }

/// Floats as integers of the same order.
inline i32 ordered(float x) {
  const i32 bits = static_cast<i32>(bits_of(x));
  return bits ^ (bits >> 31 & 0x7fffffff);
}
inline i16 ordered(u16 x) {
  const i16 bits = static_cast<i16>(x);
  return static_cast<i16>(bits ^ (bits >> 15 & 0x7fff));
}
/// Back, without negative zero.
inline float unordered(i32 key) { return float_of(static_cast<u32>(key ^ (key >> 31 & 0x7fffffff))) + 0.0f; }
inline float unordered(i16 key) { return widen(static_cast<u16>(key ^ (key >> 15 & 0x7fff))) + 0.0f; }
inline float of_magnitude(i32 bits) { return float_of(static_cast<u32>(bits)); }
inline float of_magnitude(i16 bits) { return widen(static_cast<u16>(bits)); }

template <typename T>
void extents(const T* values, const GroupRun& run, bool magnitudes, Extent* out) {
  using Key = decltype(ordered(T{}));
  for (i64 g = 0; g < run.groups; ++g, values += run.size) {
    if (magnitudes) {
      Key high = 0;
      for (i64 i = 0; i < run.size; ++i) high = magnitude_of(values[i]) > high ? magnitude_of(values[i]) : high;
      out[g] = {0.0f, of_magnitude(high)};
    } else {
      Key low = ordered(values[0]), high = low;
      for (i64 i = 0; i < run.size; ++i) {
        const Key key = ordered(values[i]);
        low = key < low ? key : low;
        high = key > high ? key : high;
      }
      out[g] = {unordered(low), unordered(high)};
    }
  }
}

// ---- Arithmetic ----

inline float to_bf16_float(float x) {
  const u32 u = bits_of(x);
  return float_of((u + 0x7fffu + (u >> 16 & 1u)) & 0xffff0000u);
}
/// To 11 bits of mantissa: f16 where it is normal. Smaller values only meet integers, which they round to the same.
inline float to_f16_float(float x) {
  const u32 u = bits_of(x);
  return float_of((u + 0xfffu + (u >> 13 & 1u)) & 0xffffe000u);
}

template <Arithmetic A>
inline float scaled(float w, const Rounding& r) {
  if constexpr (A == Arithmetic::Multiply) return w * r.factor;
  if constexpr (A == Arithmetic::MultiplyBf16) return to_bf16_float(w * r.factor);
  if constexpr (A == Arithmetic::MultiplyF16) return to_f16_float(w * r.factor);
  if constexpr (A == Arithmetic::Divide) return w / r.factor;
  if constexpr (A == Arithmetic::DivideBf16) return to_bf16_float(w / r.factor);
  if constexpr (A == Arithmetic::DivideAdd) return w / r.factor + r.shift;
  if constexpr (A == Arithmetic::DivideAddBf16) return to_bf16_float(to_bf16_float(w / r.factor) + r.shift);
  if constexpr (A == Arithmetic::DivideAddF16) return to_f16_float(to_f16_float(w / r.factor) + r.shift);
  if constexpr (A == Arithmetic::ShiftDivide) return (w - r.shift) / r.factor;
}

// ---- Elements: raw codes of scaled values, and the values of codes ----

constexpr int kBitsOf[] = {2, 3, 4, 5, 6, 8, 8, 8, 6, 6, 4, 4, 4};
constexpr bool is_integer(Element e) { return e <= Element::Int8; }

struct Small {
  int exponent, mantissa;
  u32 largest;  ///< Bits of the largest value.
};
constexpr Small small_of(Element e) {
  return e == Element::E4M3   ? Small{4, 3, 0x43e00000u}
         : e == Element::E5M2 ? Small{5, 2, 0x47600000u}
         : e == Element::E2M3 ? Small{2, 3, 0x40f00000u}
         : e == Element::E3M2 ? Small{3, 2, 0x41e00000u}
                              : Small{2, 1, 0x40c00000u};
}

template <Element E>
inline i32 small_code(float t) {
  constexpr Small kFormat = small_of(E);
  constexpr int kDrop = 23 - kFormat.mantissa, kBias = (1 << (kFormat.exponent - 1)) - 1;
  constexpr u32 kNormal = static_cast<u32>(128 - kBias) << 23;                         // smallest normal
  constexpr u32 kShift = static_cast<u32>(127 + 24 - kBias - kFormat.mantissa) << 23;  // its ulp: a subnormal's
  const u32 bits = bits_of(t), magnitude = bits & 0x7fffffffu;
  const u32 m = magnitude < kFormat.largest ? magnitude : kFormat.largest;
  const u32 normal =
      ((m + ((1u << (kDrop - 1)) - 1) + (m >> kDrop & 1u)) >> kDrop) - (static_cast<u32>(127 - kBias) << kFormat.mantissa);
  const u32 subnormal = bits_of(float_of(m) + float_of(kShift)) - kShift;
  const u32 code = m < kNormal ? subnormal : normal;
  return static_cast<i32>(code | (bits >> 31) << (kFormat.exponent + kFormat.mantissa));
}

// Midpoints of neighbouring values of bitsandbytes' tables (scaled_format.cpp).
constexpr float kNf4Bounds[15] = {-0x1.b239bp-1f,  -0x1.38a4ep-1f,  -0x1.d709p-2f,  -0x1.5bd4ecp-2f, -0x1.e079d8p-3f,
                                  -0x1.1a7178p-3f, -0x1.74f0e2p-5f, 0x1.45f5fep-5f, 0x1.ec90c4p-4f,  0x1.a0cfcp-3f,
                                  0x1.2b05a8p-2f,  0x1.8ea7f2p-2f,  0x1.00da08p-1f, 0x1.491b5ep-1f,  0x1.b913b4p-1f};
constexpr float kFp4Bounds[15] = {-0x1.aaaaacp-1f, -0x1.2aaaacp-1f, -0x1.aaaaacp-2f, -0x1.2aaaacp-2f,
                                  -0x1.aaaaacp-3f, -0x1.6p-4f,      -0x1.555556p-9f, 0.0f,
                                  0x1.555556p-9f,  0x1.6p-4f,       0x1.aaaaacp-3f,  0x1.2aaaacp-2f,
                                  0x1.aaaaacp-2f,  0x1.2aaaacp-1f,  0x1.aaaaacp-1f};
constexpr i32 kFp4Order[16] = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};

constexpr float kThird = 0x1.555556p-2f;
alignas(64) constexpr float kNf4Values[16] = {-1.0f,           -0x1.647362p-1f, -0x1.0cd66p-1f,  -0x1.94654p-2f,
                                              -0x1.23449ap-2f, -0x1.7a6a7ep-3f, -0x1.74f0e2p-4f, 0.0f,
                                              0x1.45f5fep-4f,  0x1.4995c6p-3f,  0x1.f809bap-3f,  0x1.5a0674p-2f,
                                              0x1.c3497p-2f,   0x1.200f56p-1f,  0x1.722766p-1f,  1.0f};
alignas(64) constexpr float kFp4Values[16] = {0.0f, kThird / 64,  2 * kThird,  1.0f,  kThird,  0.5f,  kThird / 2,  0.25f,
                                              0.0f, -kThird / 64, -2 * kThird, -1.0f, -kThird, -0.5f, -kThird / 2, -0.25f};
alignas(64) constexpr float kE2M1Values[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                               -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

template <Element E>
inline i32 raw_code(float t, const Rounding& r) {
  if constexpr (is_integer(E)) {
    constexpr float kRint = 12582912.0f;  // adding 1.5 * 2^23 leaves the nearest integer in the low bits
    const float low = t > r.low ? t : r.low;
    const float clipped = low < r.high ? low : r.high;
    const i32 q = static_cast<i32>(bits_of(clipped + kRint) - bits_of(kRint)) + r.zero;
    return E == Element::Int8 ? q : q + (1 << (kBitsOf[static_cast<int>(E)] - 1));
  } else if constexpr (E == Element::Nf4 || E == Element::Fp4) {
    const float* bounds = E == Element::Nf4 ? kNf4Bounds : kFp4Bounds;
    i32 index = 0;
    for (int i = 0; i < 15; ++i) index += t > bounds[i];
    return E == Element::Nf4 ? index : kFp4Order[index];
  } else {
    return small_code<E>(t);
  }
}

/// Looks up 16 values by indices 0 … 15.
inline Floats lookup(const float* table, Ints index) {
#if defined(__AVX512F__)
  return reinterpret_cast<Floats>(
      _mm512_maskz_permutexvar_ps(kAll, reinterpret_cast<__m512i>(index), _mm512_load_ps(table)));
#elif defined(__AVX2__)
  const __m256i i = reinterpret_cast<__m256i>(index);
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_load_ps(table), i);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), i);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
#else
  Floats values;
  for (int j = 0; j < kLanes; ++j) values[j] = table[index[j]];
  return values;
#endif
}

inline Uints select(Ints mask, Uints yes, Uints no) {
  const Uints m = reinterpret_cast<Uints>(mask);
  return (yes & m) | (no & ~m);
}

/// Values of raw codes (sign-extended bytes), of integers less their zero point.
template <Element E>
inline Floats values_of(Ints raw, i32 zero) {
  if constexpr (is_integer(E)) {
    constexpr i32 kOffset = E == Element::Int8 ? 0 : 1 << (kBitsOf[static_cast<int>(E)] - 1);
    return __builtin_convertvector(raw - (kOffset + zero), Floats);
  } else if constexpr (E == Element::Nf4) {
    return lookup(kNf4Values, raw);
  } else if constexpr (E == Element::Fp4) {
    return lookup(kFp4Values, raw);
  } else if constexpr (E == Element::E2M1) {
    return lookup(kE2M1Values, raw);
  } else {
    constexpr Small kFormat = small_of(E);
    constexpr int kBias = (1 << (kFormat.exponent - 1)) - 1, kTop = kFormat.exponent + kFormat.mantissa;
    const Uints code = reinterpret_cast<Uints>(raw), magnitude = code & ((1u << kTop) - 1);
    const Uints normal = (magnitude << (23 - kFormat.mantissa)) + (static_cast<u32>(127 - kBias) << 23);
    constexpr float kUlp = __builtin_bit_cast(float, static_cast<u32>(128 - kBias - kFormat.mantissa) << 23);
    const Floats subnormal = __builtin_convertvector(reinterpret_cast<Ints>(magnitude), Floats) * kUlp;
    Uints bits = select(magnitude < (1u << kFormat.mantissa), reinterpret_cast<Uints>(subnormal), normal);
    if constexpr (E == Element::E4M3) bits = select(magnitude == 0x7fu, Uints{} + 0x7fc00000u, bits);
    if constexpr (E == Element::E5M2) {
      bits = select(magnitude == 0x7cu, Uints{} + 0x7f800000u, bits);
      bits = select(magnitude > 0x7cu, Uints{} + 0x7fc00000u, bits);
    }
    return reinterpret_cast<Floats>(bits | (code >> kTop & 1u) << 31);
  }
}

// ---- Packing: n = 32 or 16 raw codes, a byte each, to and from n · bits / 8 bytes (scaled_format.h) ----

inline u64 spread_bits(u32 bits) {  // bit i of 8 to byte i
  const u64 masked = (bits & 0xffu) * 0x0101010101010101u & 0x8040201008040201u;
  return ((masked + 0x7f7f7f7f7f7f7f7fu) | masked) >> 7 & 0x0101010101010101u;
}
inline u32 gather_bits(u64 bytes) {  // bit 0 of byte i to bit i
  return static_cast<u32>((bytes & 0x0101010101010101u) * 0x0102040810204080u >> 56);
}

template <int kBits, int kCount>
void pack(const u8* raw, u8* out) {
  constexpr bool kFours = kBits & 4, kTwos = kBits & 2, kOnes = kBits & 1;
  constexpr int kQuarter = kCount / 4, kHalf = kCount / 2;
  if constexpr (kFours) {
    for (int j = 0; j < kHalf; ++j) out[j] = static_cast<u8>((raw[j] & 15) | raw[j + kHalf] << 4);
    out += kHalf;
  }
  constexpr int kTwosAt = kFours ? 4 : 0, kOnesAt = kTwosAt + (kTwos ? 2 : 0);
  if constexpr (kTwos) {
    for (int j = 0; j < kQuarter; ++j) {
      const auto part = [&](int k) { return (raw[j + k * kQuarter] >> kTwosAt & 3) << 2 * k; };
      out[j] = static_cast<u8>(part(0) | part(1) | part(2) | part(3));
    }
    out += kQuarter;
  }
  if constexpr (kOnes)
    for (int j = 0; j < kCount / 8; ++j) out[j] = static_cast<u8>(gather_bits(load<u64>(raw + 8 * j) >> kOnesAt));
}

/// The codes of a chunk, a byte each; chunks of 16 fill the first half.
struct Raw {
  u64 words[4];

  Bytes half(int i) const {
    Bytes bytes;
    __builtin_memcpy(&bytes, &words[2 * i], sizeof(bytes));
    return bytes;
  }
};

template <int kBits, int kCount>
Raw unpack(const u8* in) {
  constexpr int kWords = kCount / 8;
  Raw raw{};
  if constexpr (kBits == 8) {
    __builtin_memcpy(raw.words, in, kCount);
    return raw;
  }
  if constexpr (kBits & 4) {
    u64 packed[kWords / 2];
    __builtin_memcpy(packed, in, sizeof(packed));
    for (int i = 0; i < kWords / 2; ++i) {
      raw.words[i] = packed[i] & 0x0f0f0f0f0f0f0f0fu;
      raw.words[i + kWords / 2] = packed[i] >> 4 & 0x0f0f0f0f0f0f0f0fu;
    }
    in += kCount / 2;
  }
  constexpr int kTwosAt = kBits & 4 ? 4 : 0, kOnesAt = kTwosAt + (kBits & 2 ? 2 : 0);
  if constexpr (kBits & 2) {
    static_assert(kCount == 32);  // a quarter is a word
    const u64 packed = load<u64>(in);
    for (int i = 0; i < 4; ++i) raw.words[i] |= (packed >> 2 * i & 0x0303030303030303u) << kTwosAt;
    in += kCount / 4;
  }
  if constexpr (kBits & 1)
    for (int i = 0; i < kWords; ++i) raw.words[i] |= spread_bits(in[i]) << kOnesAt;
  return raw;
}

// ---- Rounding ----

template <Element E, Arithmetic A, int kCount, typename T>
void round_chunk(const T* values, const Rounding& r, int filled, u8* codes) {
  constexpr int kBits = kBitsOf[static_cast<int>(E)];
  u8 raw[kCount];
  for (int j = 0; j < kCount; ++j) raw[j] = static_cast<u8>(raw_code<E>(scaled<A>(widen(values[j]), r), r));
  if (filled < kCount)
    for (int j = filled; j < kCount; ++j) raw[j] = 0;
  if constexpr (kBits == 8)
    __builtin_memcpy(codes, raw, static_cast<std::size_t>(filled));
  else
    pack<kBits, kCount>(raw, codes);
}

template <Element E, Arithmetic A, int kCount, typename T>
void round_groups(const T* values, const GroupRun& run, const Rounding* roundings, u8* codes) {
  constexpr i64 kBytes = kCount * kBitsOf[static_cast<int>(E)] / 8;
  for (i64 g = 0; g < run.groups; ++g, codes += run.stride) {
    const Rounding r = roundings[g];
    u8* out = codes;
    i64 left = run.size;
    for (; left >= kCount; left -= kCount, values += kCount, out += kBytes)
      round_chunk<E, A, kCount>(values, r, kCount, out);
    if (left == 0) continue;
    T padded[kCount] = {};
    for (i64 i = 0; i < left; ++i) padded[i] = values[i];
    round_chunk<E, A, kCount>(padded, r, static_cast<int>(left), out);
    values += left;
  }
}

/// Integers take every arithmetic but plain division in bf16.
template <Element E, typename T>
void round_integers(Arithmetic arithmetic, const T* values, const GroupRun& run, const Rounding* roundings, u8* codes) {
  switch (arithmetic) {
    case Arithmetic::MultiplyBf16: return round_groups<E, Arithmetic::MultiplyBf16, kChunk>(values, run, roundings, codes);
    case Arithmetic::MultiplyF16: return round_groups<E, Arithmetic::MultiplyF16, kChunk>(values, run, roundings, codes);
    case Arithmetic::Divide: return round_groups<E, Arithmetic::Divide, kChunk>(values, run, roundings, codes);
    case Arithmetic::DivideAdd: return round_groups<E, Arithmetic::DivideAdd, kChunk>(values, run, roundings, codes);
    case Arithmetic::DivideAddBf16: return round_groups<E, Arithmetic::DivideAddBf16, kChunk>(values, run, roundings, codes);
    case Arithmetic::DivideAddF16: return round_groups<E, Arithmetic::DivideAddF16, kChunk>(values, run, roundings, codes);
    case Arithmetic::ShiftDivide: return round_groups<E, Arithmetic::ShiftDivide, kChunk>(values, run, roundings, codes);
    default: return round_groups<E, Arithmetic::Multiply, kChunk>(values, run, roundings, codes);
  }
}

template <Element E, int kCount = kChunk, typename T>
void round_floats(Arithmetic arithmetic, const T* values, const GroupRun& run, const Rounding* roundings, u8* codes) {
  if (arithmetic == Arithmetic::Divide) return round_groups<E, Arithmetic::Divide, kCount>(values, run, roundings, codes);
  if (arithmetic == Arithmetic::DivideBf16)
    return round_groups<E, Arithmetic::DivideBf16, kCount>(values, run, roundings, codes);
  round_groups<E, Arithmetic::Multiply, kCount>(values, run, roundings, codes);
}

template <typename T>
void round_run(Element element, Arithmetic arithmetic, const T* values, const GroupRun& run, const Rounding* roundings,
               u8* codes) {
  switch (element) {
    case Element::Int2: return round_integers<Element::Int2>(arithmetic, values, run, roundings, codes);
    case Element::Int3: return round_integers<Element::Int3>(arithmetic, values, run, roundings, codes);
    case Element::Int4: return round_integers<Element::Int4>(arithmetic, values, run, roundings, codes);
    case Element::Int5: return round_integers<Element::Int5>(arithmetic, values, run, roundings, codes);
    case Element::Int6: return round_integers<Element::Int6>(arithmetic, values, run, roundings, codes);
    case Element::Int8: return round_integers<Element::Int8>(arithmetic, values, run, roundings, codes);
    case Element::E4M3: return round_floats<Element::E4M3>(arithmetic, values, run, roundings, codes);
    case Element::E5M2: return round_floats<Element::E5M2>(arithmetic, values, run, roundings, codes);
    case Element::E2M3: return round_groups<Element::E2M3, Arithmetic::Multiply, kChunk>(values, run, roundings, codes);
    case Element::E3M2: return round_groups<Element::E3M2, Arithmetic::Multiply, kChunk>(values, run, roundings, codes);
    case Element::E2M1:
      if (run.size == kChunk / 2) return round_floats<Element::E2M1, kChunk / 2>(arithmetic, values, run, roundings, codes);
      return round_groups<Element::E2M1, Arithmetic::Multiply, kChunk>(values, run, roundings, codes);
    case Element::Nf4: return round_groups<Element::Nf4, Arithmetic::Multiply, kChunk>(values, run, roundings, codes);
    case Element::Fp4: return round_groups<Element::Fp4, Arithmetic::Multiply, kChunk>(values, run, roundings, codes);
  }
}

// ---- Decoding ----

template <Element E, bool kShifted, int kCount, typename T>
void decode_chunk(const u8* codes, const Decoding& d, T* values) {
  const Raw raw = unpack<kBitsOf[static_cast<int>(E)], kCount>(codes);
  for (int j = 0; j < kCount; j += kLanes) {
    const Floats product = values_of<E>(widen_codes(raw.half(j / 16), j % 16), d.zero) * d.scale;
    if constexpr (kShifted)
      store_rounded(product + d.shift, values + j);
    else
      store_rounded(product, values + j);
  }
}

template <Element E, bool kShifted, int kCount, typename T>
void decode_groups(const u8* codes, const GroupRun& run, const Decoding* decodings, T* values) {
  constexpr i64 kBytes = kCount * kBitsOf[static_cast<int>(E)] / 8;
  for (i64 g = 0; g < run.groups; ++g, codes += run.stride) {
    const Decoding d = decodings[g];
    const u8* in = codes;
    i64 left = run.size;
    for (; left >= kCount; left -= kCount, values += kCount, in += kBytes) decode_chunk<E, kShifted, kCount>(in, d, values);
    if (left == 0) continue;
    u8 padded[kBytes] = {};
    T out[kCount];
    __builtin_memcpy(padded, in, static_cast<std::size_t>(kBytes == kCount ? left : kBytes));
    decode_chunk<E, kShifted, kCount>(padded, d, out);
    for (i64 i = 0; i < left; ++i) values[i] = out[i];
    values += left;
  }
}

template <Element E, typename T>
void decode_integers(bool shifted, const u8* codes, const GroupRun& run, const Decoding* decodings, T* values) {
  if (shifted)
    decode_groups<E, true, kChunk>(codes, run, decodings, values);
  else
    decode_groups<E, false, kChunk>(codes, run, decodings, values);
}

template <typename T>
void decode_run(Element element, bool shifted, const u8* codes, const GroupRun& run, const Decoding* decodings, T* values) {
  switch (element) {
    case Element::Int2: return decode_integers<Element::Int2>(shifted, codes, run, decodings, values);
    case Element::Int3: return decode_integers<Element::Int3>(shifted, codes, run, decodings, values);
    case Element::Int4: return decode_integers<Element::Int4>(shifted, codes, run, decodings, values);
    case Element::Int5: return decode_integers<Element::Int5>(shifted, codes, run, decodings, values);
    case Element::Int6: return decode_integers<Element::Int6>(shifted, codes, run, decodings, values);
    case Element::Int8: return decode_integers<Element::Int8>(shifted, codes, run, decodings, values);
    case Element::E4M3: return decode_groups<Element::E4M3, false, kChunk>(codes, run, decodings, values);
    case Element::E5M2: return decode_groups<Element::E5M2, false, kChunk>(codes, run, decodings, values);
    case Element::E2M3: return decode_groups<Element::E2M3, false, kChunk>(codes, run, decodings, values);
    case Element::E3M2: return decode_groups<Element::E3M2, false, kChunk>(codes, run, decodings, values);
    case Element::E2M1:
      if (run.size == kChunk / 2) return decode_groups<Element::E2M1, false, kChunk / 2>(codes, run, decodings, values);
      return decode_groups<Element::E2M1, false, kChunk>(codes, run, decodings, values);
    case Element::Nf4: return decode_groups<Element::Nf4, false, kChunk>(codes, run, decodings, values);
    case Element::Fp4: return decode_groups<Element::Fp4, false, kChunk>(codes, run, decodings, values);
  }
}

// ---- Counts ----

/// Sums kept in 8 bits by lane and carried over before they could pass 255.
struct LaneSums {
  static constexpr int kPerFlush = 120;  ///< Chunks between flushes: each adds at most 2 to a lane.
  Bytes changed = {}, saturated = {};
  int chunks = 0;
  CodeCounts total{0, 0};

  void flush() {
    for (int j = 0; j < 16; ++j) {
      total.changed += changed[j];
      total.saturated += saturated[j];
    }
    changed = saturated = Bytes{};
    chunks = 0;
  }
};

template <int kBits, int kCount>
CodeCounts count_groups(const u8* now, const u8* before, const GroupRun& run, const u8* ends) {
  constexpr i64 kBytes = kCount * kBits / 8;
  LaneSums sums;
  for (i64 g = 0; g < run.groups; ++g, now += run.stride, before += run.stride) {
    const u8 *a = now, *b = before;
    i64 left = run.size;
    for (; left >= kCount; left -= kCount, a += kBytes, b += kBytes) {
      const Raw x = unpack<kBits, kCount>(a), y = unpack<kBits, kCount>(b);
      for (int i = 0; i < kCount / 16; ++i) {  // a comparison gives -1 where it holds
        sums.changed -= reinterpret_cast<Bytes>(x.half(i) != y.half(i));
        sums.saturated -= reinterpret_cast<Bytes>((x.half(i) == ends[0]) | (x.half(i) == ends[1]));
      }
      if (++sums.chunks == LaneSums::kPerFlush) sums.flush();
    }
    if (left == 0) continue;
    u8 padded[2][kBytes] = {};
    const auto bytes = static_cast<std::size_t>(kBits == 8 ? left : kBytes);
    __builtin_memcpy(padded[0], a, bytes);
    __builtin_memcpy(padded[1], b, bytes);
    const Raw x = unpack<kBits, kCount>(padded[0]), y = unpack<kBits, kCount>(padded[1]);
    for (int i = 0; i < left; ++i) {
      const u8 code = x.half(i / 16)[i % 16];
      sums.total.changed += code != y.half(i / 16)[i % 16];
      sums.total.saturated += code == ends[0] || code == ends[1];
    }
  }
  sums.flush();
  return sums.total;
}

CodeCounts count_run(int bits, const u8* now, const u8* before, const GroupRun& run, const u8* ends) {
  switch (bits) {
    case 2: return count_groups<2, kChunk>(now, before, run, ends);
    case 3: return count_groups<3, kChunk>(now, before, run, ends);
    case 4:
      if (run.size == kChunk / 2) return count_groups<4, kChunk / 2>(now, before, run, ends);
      return count_groups<4, kChunk>(now, before, run, ends);
    case 5: return count_groups<5, kChunk>(now, before, run, ends);
    case 6: return count_groups<6, kChunk>(now, before, run, ends);
    default: return count_groups<8, kChunk>(now, before, run, ends);
  }
}

}  // namespace

const ScaledKernels kScaled = {extents<float>,    extents<u16>,    round_run<float>, round_run<u16>,
                               decode_run<float>, decode_run<u16>, count_run};

}  // namespace temper::quant::TEMPER_ISA_LEVEL
