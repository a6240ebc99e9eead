// In three steps: arithmetic and rounding of a chunk of elements to raw codes, one code in each byte, then packing; and
// back. The first is plain loops that compilers vectorise; bytes are packed in vectors of 16 and in 64-bit words.
#include "quant/isa/scaled.h"

#include "quant/isa/groups.h"
#include "quant/isa/scaled_elements.h"

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

using u64 = std::uint64_t;

// ---- Extents ----

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

template <typename T>
void extents(const T* values, const GroupRun& run, bool magnitudes, Extent* out) {
  using Key = decltype(ordered(T{}));
  for (i64 g = 0; g < run.groups; ++g, values += run.size) {
    if (magnitudes) {
      out[g] = {0.0f, max_magnitude(values, run.size)};
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

// ---- Packing: n = 32 or 16 raw codes, a byte each, to and from n · bits / 8 bytes (scaled_format.h) ----

constexpr u64 kLowNibbles = 0x0f0f0f0f0f0f0f0fu, kLowPairs = 0x0303030303030303u, kEveryByte = 0x0101010101010101u;

inline u32 gather_bits(u64 bytes) {  // bit 0 of byte i to bit i
  return static_cast<u32>((bytes & kEveryByte) * 0x0102040810204080u >> 56);
}

/// The raw codes of a chunk, a byte each; chunks of 16 fill the first half.
template <int kCount>
struct Raw {
  Bytes halves[kCount / 16];
};

/// Sixteen bytes of two words.
inline Bytes bytes_of(u64 first, u64 second) {
  using Words = u64 __attribute__((vector_size(16)));
  return reinterpret_cast<Bytes>(Words{first, second});
}

/// Sixteen bytes: kValue where a bit is set, else 0.
template <int kValue>
inline Bytes spread_bits(const u8* bits) {
#if defined(__AVX512F__)
  return reinterpret_cast<Bytes>(_mm_maskz_set1_epi8(load<u16>(bits), kValue));
#else
  constexpr Bytes kBitOf = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const Bytes spread = bytes_of(bits[0] * kEveryByte, bits[1] * kEveryByte) & kBitOf;
  return reinterpret_cast<Bytes>(spread == kBitOf) & static_cast<u8>(kValue);
#endif
}

template <int kBits, int kCount>
void pack(const u8* raw, u8* out) {
  constexpr int kTwosAt = kBits & 4 ? 4 : 0, kOnesAt = kTwosAt + (kBits & 2 ? 2 : 0);
  if constexpr (kBits & 4) {
    if constexpr (kCount == 32)
      store(out, static_cast<Bytes>((load<Bytes>(raw) & 15) | load<Bytes>(raw + 16) << 4));
    else
      store(out, (load<u64>(raw) & kLowNibbles) | (load<u64>(raw + 8) & kLowNibbles) << 4);
    out += kCount / 2;
  }
  if constexpr (kBits & 2) {
    static_assert(kCount == 32);  // a quarter is a word
    u64 packed = 0;
    for (int i = 0; i < 4; ++i) packed |= (load<u64>(raw + 8 * i) >> kTwosAt & kLowPairs) << 2 * i;
    store(out, packed);
    out += kCount / 4;
  }
  if constexpr (kBits & 1)
    for (int j = 0; j < kCount / 8; ++j) out[j] = static_cast<u8>(gather_bits(load<u64>(raw + 8 * j) >> kOnesAt));
}

/// Always inline: as a call it would hand its vectors over in memory, at twice the time of a decode.
template <int kBits, int kCount>
[[gnu::always_inline]] inline Raw<kCount> unpack(const u8* in) {
  constexpr int kTwosAt = kBits & 4 ? 4 : 0, kOnesAt = kTwosAt + (kBits & 2 ? 2 : 0);
  Raw<kCount> raw{};
  if constexpr (kBits == 8) {
    __builtin_memcpy(raw.halves, in, kCount);
    return raw;
  }
  if constexpr (kBits & 4) {
    if constexpr (kCount == 32) {
      const Bytes packed = load<Bytes>(in);
      raw.halves[0] = packed & 15;
      raw.halves[1] = packed >> 4;
    } else {
      const u64 packed = load<u64>(in);
      raw.halves[0] = bytes_of(packed & kLowNibbles, packed >> 4 & kLowNibbles);
    }
    in += kCount / 2;
  }
  if constexpr (kBits & 2) {
    const u64 packed = load<u64>(in);
    for (int i = 0; i < 2; ++i)
      raw.halves[i] |= bytes_of((packed >> 4 * i & kLowPairs) << kTwosAt, (packed >> (4 * i + 2) & kLowPairs) << kTwosAt);
    in += kCount / 4;
  }
  if constexpr (kBits & 1)
    for (int i = 0; i < kCount / 16; ++i) raw.halves[i] |= spread_bits<1 << kOnesAt>(in + 2 * i);
  return raw;
}

// ---- Rounding ----

template <Element E, Arithmetic A, int kCount, typename T>
void round_chunk(const T* values, const Rounding& r, int filled, u8* codes) {
  constexpr int kBits = kBitsOf[static_cast<int>(E)];
  alignas(64) u8 raw[kCount];
  for (int j = 0; j < kCount; j += kLanes) store_low_bytes(raw_codes<E>(scaled<A>(load_values(values + j), r), r), raw + j);
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
  const auto raw = unpack<kBitsOf[static_cast<int>(E)], kCount>(codes);
  for (int j = 0; j < kCount; j += kLanes) {
    const Floats product = values_of<E>(widen_codes(raw.halves[j / 16], j % 16), d.zero) * d.scale;
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

template <int kBits, int kCount>
CodeCounts count_groups(const u8* now, const u8* before, const GroupRun& run, const u8* ends) {
  constexpr i64 kBytes = kCount * kBits / 8;
  ByteSums sums;
  for (i64 g = 0; g < run.groups; ++g, now += run.stride, before += run.stride) {
    const u8 *a = now, *b = before;
    i64 left = run.size;
    for (; left >= kCount; left -= kCount, a += kBytes, b += kBytes) {
      const auto x = unpack<kBits, kCount>(a), y = unpack<kBits, kCount>(b);
      for (int i = 0; i < kCount / 16; ++i) {  // a comparison gives -1 where it holds
        sums.changed -= reinterpret_cast<Bytes>(x.halves[i] != y.halves[i]);
        sums.saturated -= reinterpret_cast<Bytes>((x.halves[i] == ends[0]) | (x.halves[i] == ends[1]));
      }
      if (++sums.chunks == ByteSums::kPerFlush) sums.flush();
    }
    if (left == 0) continue;
    u8 padded[2][kBytes] = {};
    const auto bytes = static_cast<std::size_t>(kBits == 8 ? left : kBytes);
    __builtin_memcpy(padded[0], a, bytes);
    __builtin_memcpy(padded[1], b, bytes);
    const auto x = unpack<kBits, kCount>(padded[0]), y = unpack<kBits, kCount>(padded[1]);
    for (int i = 0; i < left; ++i) {
      const u8 code = x.halves[i / 16][i % 16];
      sums.total.changed += code != y.halves[i / 16][i % 16];
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
