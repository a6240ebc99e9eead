// Sixteen f32 lanes on every instruction set: one AVX-512 register, two of AVX2, or four of SSE or NEON. GCC's and clang's
// vector types keep one source for all of them; the split into native parts keeps accumulators in registers.
//
// Compiled once per level inside its own namespace (TEMPER_KERNEL_NS), so that no two levels share a symbol. Includes
// nothing with inline functions of its own for the same reason.
#pragma once

#if defined(__AVX512BF16__)
#include <immintrin.h>  // for what vector types cannot say; its functions leave no symbol behind
#endif

#include "ops/cpu/kernels.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {

inline constexpr int kLanes = 16;
#if defined(__AVX512F__)
inline constexpr int kNative = 16;
#elif defined(__AVX2__)
inline constexpr int kNative = 8;
#else
inline constexpr int kNative = 4;
#endif
inline constexpr int kParts = kLanes / kNative;

typedef float NativeF __attribute__((vector_size(kNative * 4)));
typedef std::int32_t NativeI __attribute__((vector_size(kNative * 4)));
typedef std::uint32_t NativeU __attribute__((vector_size(kNative * 4)));
typedef std::uint16_t NativeH __attribute__((vector_size(kNative * 2)));

struct Bf16 {
  std::uint16_t bits;
};
struct F16 {
  std::uint16_t bits;
};

#define TEMPER_INLINE inline __attribute__((always_inline))

/// Sixteen f32.
struct Vec {
  NativeF part[kParts];

  Vec() = default;
  TEMPER_INLINE explicit Vec(float x) {
    for (int p = 0; p < kParts; ++p) part[p] = x - NativeF{};
  }
};

#define TEMPER_VEC_OPERATOR(op)                                          \
  TEMPER_INLINE Vec operator op(const Vec& a, const Vec& b) {            \
    Vec r;                                                               \
    for (int p = 0; p < kParts; ++p) r.part[p] = a.part[p] op b.part[p]; \
    return r;                                                            \
  }
TEMPER_VEC_OPERATOR(+)
TEMPER_VEC_OPERATOR(-)
TEMPER_VEC_OPERATOR(*)
TEMPER_VEC_OPERATOR(/)
#undef TEMPER_VEC_OPERATOR

TEMPER_INLINE Vec max(const Vec& a, const Vec& b) {
  Vec r;
  for (int p = 0; p < kParts; ++p) r.part[p] = a.part[p] > b.part[p] ? a.part[p] : b.part[p];
  return r;
}

TEMPER_INLINE Vec square_root(const Vec& x) {
  Vec r;
  for (int p = 0; p < kParts; ++p)
    for (int i = 0; i < kNative; ++i) r.part[p][i] = __builtin_sqrtf(x.part[p][i]);
  return r;
}

/// a · b + c; one rounding where the file is compiled with -ffp-contract=fast and the CPU has FMA, two elsewhere.
TEMPER_INLINE Vec multiply_add(const Vec& a, const Vec& b, const Vec& c) {
  Vec r;
  for (int p = 0; p < kParts; ++p) r.part[p] = a.part[p] * b.part[p] + c.part[p];
  return r;
}

// ---- Loads and stores ---------------------------------------------------------------------------------------------------

/// Part by part: as one object it would go through memory where it is wider than a register.
TEMPER_INLINE Vec load(const float* p) {
  Vec r;
  for (int i = 0; i < kParts; ++i) __builtin_memcpy(&r.part[i], p + i * kNative, sizeof(NativeF));
  return r;
}

/// The 32 bits at p in every lane, whatever they mean.
TEMPER_INLINE Vec broadcast(const float* p) {
  std::int32_t bits;
  __builtin_memcpy(&bits, p, sizeof(bits));
  Vec r;
  for (int i = 0; i < kParts; ++i) r.part[i] = (NativeF)(bits - NativeI{});
  return r;
}

TEMPER_INLINE Vec load(const Bf16* p) {
  Vec r;
  for (int i = 0; i < kParts; ++i) {
    NativeH h;
    __builtin_memcpy(&h, p + i * kNative, sizeof(h));
    r.part[i] = (NativeF)(__builtin_convertvector(h, NativeU) << 16);
  }
  return r;
}

/// Exact: the shifted bits are the value times 2^-112, subnormals included; infinities and NaN keep their exponent.
TEMPER_INLINE Vec load(const F16* p) {
  Vec r;
  for (int i = 0; i < kParts; ++i) {
    NativeH h;
    __builtin_memcpy(&h, p + i * kNative, sizeof(h));
    const NativeU bits = __builtin_convertvector(h, NativeU);
    const NativeU magnitude = (bits & 0x7fffu) << 13;
    const NativeU scaled = (NativeU)((NativeF)magnitude * 0x1p112f);
    const NativeU special = magnitude | 0x7f800000u;
    const NativeU value = (NativeU)((bits & 0x7c00u) == 0x7c00u);
    r.part[i] = (NativeF)(((special & value) | (scaled & ~value)) | ((bits & 0x8000u) << 16));
  }
  return r;
}

TEMPER_INLINE void store(float* p, const Vec& x) {
  for (int i = 0; i < kParts; ++i) __builtin_memcpy(p + i * kNative, &x.part[i], sizeof(NativeF));
}

/// Nearest even; NaN stays a quiet NaN.
TEMPER_INLINE void store(Bf16* p, const Vec& x) {
  for (int i = 0; i < kParts; ++i) {
    const NativeU u = (NativeU)x.part[i];
    const NativeU rounded = u + 0x7fffu + ((u >> 16) & 1u);
    const NativeU nan = (NativeU)((NativeI)(u & 0x7fffffffu) > 0x7f800000);
    const NativeH h = __builtin_convertvector((((u | 0x400000u) & nan) | (rounded & ~nan)) >> 16, NativeH);
    __builtin_memcpy(p + i * kNative, &h, sizeof(h));
  }
}

/// Nearest even, as to_f16 of base/scalar.h.
TEMPER_INLINE std::uint16_t f16_bits(float x) {
  std::uint32_t u;
  __builtin_memcpy(&u, &x, 4);
  const std::uint32_t sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    float m;
    __builtin_memcpy(&m, &magnitude, 4);
    m += 0.5f;
    __builtin_memcpy(&u, &m, 4);
    return static_cast<std::uint16_t>(sign | (u - 0x3f000000u));
  }
  const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

TEMPER_INLINE void store(F16* p, const Vec& x) {
  float lanes[kLanes];
  store(lanes, x);
  for (int i = 0; i < kLanes; ++i) p[i].bits = f16_bits(lanes[i]);
}

/// The first n < 16 lanes; the others are zero.
template <typename T>
TEMPER_INLINE Vec load_part(const T* p, Index n) {
  T lanes[kLanes] = {};
  for (Index i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}

template <typename T>
TEMPER_INLINE void store_part(T* p, const Vec& x, Index n) {
  T lanes[kLanes];
  store(lanes, x);
  for (Index i = 0; i < n; ++i) p[i] = lanes[i];
}

/// Calls body(column, n) for each group of 16 columns, n = 16 as a constant but for the last.
template <typename Body>
TEMPER_INLINE void for_columns(Index cols, Body&& body) {
  Index c = 0;
  for (; c + kLanes <= cols; c += kLanes)
    body(
        c, [](auto* p) { return load(p); }, [](auto* p, const Vec& x) { store(p, x); });
  const Index rest = cols - c;
  if (rest > 0)
    body(
        c, [rest](auto* p) { return load_part(p, rest); }, [rest](auto* p, const Vec& x) { store_part(p, x, rest); });
}

// ---- Reductions over lanes, always in this order ------------------------------------------------------------------------

typedef float FourF __attribute__((vector_size(16)));
typedef float EightF __attribute__((vector_size(32)));

/// Lane i meets lane i + 8, then i + 4, i + 2, i + 1.
template <typename Combine>
TEMPER_INLINE float reduce_lanes(const Vec& x, Combine&& combine) {
#if defined(__AVX512F__)
  const EightF eight = combine(__builtin_shufflevector(x.part[0], x.part[0], 0, 1, 2, 3, 4, 5, 6, 7),
                               __builtin_shufflevector(x.part[0], x.part[0], 8, 9, 10, 11, 12, 13, 14, 15));
#elif defined(__AVX2__)
  const EightF eight = combine(x.part[0], x.part[1]);
#endif
#if defined(__AVX2__)
  const FourF four =
      combine(__builtin_shufflevector(eight, eight, 0, 1, 2, 3), __builtin_shufflevector(eight, eight, 4, 5, 6, 7));
#else
  const FourF four = combine(combine(x.part[0], x.part[2]), combine(x.part[1], x.part[3]));
#endif
  return combine(combine(four[0], four[2]), combine(four[1], four[3]));
}
TEMPER_INLINE float sum(const Vec& x) {
  return reduce_lanes(
      x, [](auto a, auto b) __attribute__((always_inline)) { return a + b; });
}
TEMPER_INLINE float maximum(const Vec& x) {
  return reduce_lanes(
      x, [](auto a, auto b) __attribute__((always_inline)) { return a > b ? a : b; });
}

// ---- exp ----------------------------------------------------------------------------------------------------------------

/// e^x within 2 ulp: x = n ln 2 + r with |r| <= ln 2 / 2 (Cody & Waite), a polynomial in r, times 2^n. 0 below -87.3;
/// infinity above 88.37; NaN for NaN.
TEMPER_INLINE Vec exp(const Vec& x) {
  Vec result;
  for (int i = 0; i < kParts; ++i) {
    const NativeF v = x.part[i];
    const NativeF shifted = v * 1.44269504f + 12582912.0f;  // 1.5 · 2^23: the integer part lands in the low bits
    const NativeF n = shifted - 12582912.0f;
    const NativeF r = (v - n * 0.693145752f) - n * 1.42860682e-6f;
    NativeF p = r * 1.98756910e-4f + 1.39819994e-3f;
    p = p * r + 8.33345205e-3f;
    p = p * r + 4.16657962e-2f;
    p = p * r + 1.66666655e-1f;
    p = p * r + 0.5f;
    p = p * (r * r) + r + 1.0f;
    const NativeF power = (NativeF)(((NativeU)shifted + 127u) << 23);
    const NativeU low = (NativeU)(v < -87.3f), high = (NativeU)(v > 88.37f);
    const NativeU value = (NativeU)(p * power);
    result.part[i] = (NativeF)((((value & ~low) & ~high)) | (high & 0x7f800000u));
  }
  return result;
}

TEMPER_INLINE Vec tanh(const Vec& x) { return Vec(1.0f) - Vec(2.0f) / (exp(x + x) + Vec(1.0f)); }

// ---- Types --------------------------------------------------------------------------------------------------------------

template <typename T>
TEMPER_INLINE T* row_of(const Rows& m, Index row) {
  return static_cast<T*>(m.data) + row * m.stride;
}

/// Calls body with a null pointer of the C++ type behind a run-time one. Activations are never F16.
template <typename Body>
TEMPER_INLINE void with_activation(Elem type, Body&& body) {
  if (type == Elem::BF16)
    body(static_cast<Bf16*>(nullptr));
  else
    body(static_cast<float*>(nullptr));
}
template <typename Body>
TEMPER_INLINE void with_storage(Elem type, Body&& body) {
  if (type == Elem::F16)
    body(static_cast<F16*>(nullptr));
  else
    with_activation(type, body);
}
template <typename Pointer>
struct Pointee;
template <typename T>
struct Pointee<T*> {
  using type = T;
};
/// A compile-time number as a value.
template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};
/// The type behind a pointer handed out by with_activation or with_storage.
#define TEMPER_TYPE(tag) typename Pointee<decltype(tag)>::type

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
