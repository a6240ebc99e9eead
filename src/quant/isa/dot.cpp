// Products of a few rows of activations with rows of weights. Compiled once per instruction set into a namespace of its own;
// all of it has internal linkage and calls no inline function of another header, so that no code for a newer CPU can be
// merged into what an older one runs.
#include "quant/dot.h"

#if defined(__AVX512F__)
#include "quant/isa/dot_avx512.h"
#elif defined(__AVX2__)
#include <immintrin.h>
#endif

namespace temper::quant::TEMPER_ISA_LEVEL {
namespace {

// Sixteen lanes, as one register or two or four; sums over lanes are always halved in the same way.
constexpr int kLanes = 16;
#if defined(__AVX512F__)
constexpr int kNative = 16;
#elif defined(__AVX2__)
constexpr int kNative = 8;
#else
constexpr int kNative = 4;
#endif
constexpr int kParts = kLanes / kNative;
typedef float Native __attribute__((vector_size(4 * kNative)));
typedef std::uint32_t NativeBits __attribute__((vector_size(4 * kNative)));
typedef std::uint16_t NativeHalf __attribute__((vector_size(2 * kNative)));

inline Native load_lanes(const float* p) {
  Native x;
  __builtin_memcpy(&x, p, sizeof(x));
  return x;
}
inline Native load_lanes(const std::uint16_t* p) {
  NativeHalf x;
  __builtin_memcpy(&x, p, sizeof(x));
  return reinterpret_cast<Native>(__builtin_convertvector(x, NativeBits) << 16);
}
inline float load_one(const float* p) { return *p; }
inline float load_one(const std::uint16_t* p) { return __builtin_bit_cast(float, static_cast<std::uint32_t>(*p) << 16); }

inline Native multiply_add(Native a, Native b, Native c) {
#if defined(__AVX512F__)
  return reinterpret_cast<Native>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(__AVX2__)
  return reinterpret_cast<Native>(
      _mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b), reinterpret_cast<__m256>(c)));
#else
  return a * b + c;
#endif
}

template <typename T>
float dense_dot(const T* w, const T* x, std::int64_t cols) {
  Native sums[kParts] = {};
  const std::int64_t whole = cols / kLanes * kLanes;
  for (std::int64_t k = 0; k < whole; k += kLanes)
    for (int p = 0; p < kParts; ++p)
      sums[p] = multiply_add(load_lanes(w + k + p * kNative), load_lanes(x + k + p * kNative), sums[p]);
  float lanes[kLanes];
  __builtin_memcpy(lanes, sums, sizeof(lanes));
  for (std::int64_t k = whole; k < cols; ++k) lanes[k - whole] += load_one(w + k) * load_one(x + k);
  for (int n = kLanes / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) lanes[i] += lanes[i + n];
  return lanes[0];
}

template <typename T>
void dense(const DotTask& t) {
  for (std::int64_t n = 0; n < t.rows; ++n)
    for (std::int64_t m = 0; m < t.m; ++m)
      t.sums[m * t.sums_stride + n] = dense_dot(reinterpret_cast<const T*>(t.weights + n * t.row_bytes),
                                                static_cast<const T*>(t.x) + m * t.x_stride, t.cols);
}

constexpr DotTable make_table() {
  DotTable table{dense<float>, dense<std::uint16_t>, {}, {}};
#if defined(__AVX512F__)
  fill<F32Operand>(table.f32);
#endif
#if defined(__AVX512BF16__)
  fill<Bf16Operand>(table.bf16);
#endif
  return table;
}

}  // namespace

extern const DotTable kDotTable;
const DotTable kDotTable = make_table();

}  // namespace temper::quant::TEMPER_ISA_LEVEL
