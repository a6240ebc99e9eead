// Products with few rows on the left, as in generation: each weight row is read once and met by every row of a.
#include "ops/cpu/kernels/local.h"
#include "ops/cpu/kernels/simd.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {
namespace {

/// Products of kRows rows of a and kCols rows of b: that many independent sums hide the latency of each.
template <typename T, int kRows, int kCols>
TEMPER_INLINE void sums_of(const T* const (&a)[kRows], const T* const (&b)[kCols], Index k, float (&sums)[kRows][kCols]) {
  Vec total[kRows][kCols];
  for (auto& row : total)
    for (Vec& sum : row) sum = Vec(0.0f);
  for_columns(k, [&](Index i, auto get, auto) {
    Vec left[kRows];
    for (int m = 0; m < kRows; ++m) left[m] = get(a[m] + i);
    for (int n = 0; n < kCols; ++n) {
      const Vec right = get(b[n] + i);
      for (int m = 0; m < kRows; ++m) total[m][n] = multiply_add(left[m], right, total[m][n]);
    }
  });
  for (int m = 0; m < kRows; ++m)
    for (int n = 0; n < kCols; ++n) sums[m][n] = sum(total[m][n]);
}

/// Rows of b that a lone row of a meets at once.
template <typename T>
constexpr int kLoneCols = 4;

#if defined(__AVX512BF16__)
template <>
constexpr int kLoneCols<Bf16> = 1;

/// A lone row's weights come from memory, once a token: they are asked for this long before their turn, and not to be kept.
constexpr std::size_t kBytesAhead = 4096;

/// The same in pairs of bf16. A lone row of a meets one row of b at a time, in memory's order, with four sums in turn.
template <int kRows, int kCols>
TEMPER_INLINE void sums_of(const Bf16* const (&a)[kRows], const Bf16* const (&b)[kCols], Index k,
                           float (&sums)[kRows][kCols]) {
  constexpr Index kStep = 32;
  constexpr int kTurns = kRows == 1 ? 4 : 1;
  __m512 total[kRows][kCols][kTurns];
  for (auto& row : total)
    for (auto& turns : row)
      for (__m512& part : turns) part = _mm512_setzero_ps();
  const auto add = [&](int turn, Index at, auto&& get) __attribute__((always_inline)) {
    __m512i left[kRows];
    for (int m = 0; m < kRows; ++m) left[m] = get(a[m]);
    for (int n = 0; n < kCols; ++n) {
      const __m512i right = get(b[n]);
      if constexpr (kRows == 1) _mm_prefetch(reinterpret_cast<const char*>(b[n] + at) + kBytesAhead, _MM_HINT_NTA);
      for (int m = 0; m < kRows; ++m)
        total[m][n][turn] = _mm512_dpbf16_ps(total[m][n][turn], (__m512bh)left[m], (__m512bh)right);
    }
  };
  Index i = 0;
  for (; i + kStep * kTurns <= k; i += kStep * kTurns)
    for (int turn = 0; turn < kTurns; ++turn)
      add(
          turn, i + turn * kStep, [&](const Bf16* p) __attribute__((always_inline)) {
            return _mm512_loadu_si512(p + i + turn * kStep);
          });
  for (; i < k; i += kStep) {
    const __mmask32 rest = i + kStep <= k ? ~__mmask32{0} : (__mmask32{1} << (k - i)) - 1;
    add(
        0, i, [&](const Bf16* p) __attribute__((always_inline)) { return _mm512_maskz_loadu_epi16(rest, p + i); });
  }
  for (int m = 0; m < kRows; ++m)
    for (int n = 0; n < kCols; ++n) {
      Vec all;
      all.part[0] = (NativeF)total[m][n][0];
      for (int turn = 1; turn < kTurns; ++turn) all.part[0] += (NativeF)total[m][n][turn];
      sums[m][n] = sum(all);
    }
}
#endif

template <typename T, int kRows, int kCols>
TEMPER_INLINE void block(const Rows& a, const Rows& b, const Rows& c, Index row, Index col, Index k, float alpha,
                         bool accumulate) {
  const T *left[kRows], *right[kCols];
  for (int m = 0; m < kRows; ++m) left[m] = row_of<T>(a, row + m);
  for (int n = 0; n < kCols; ++n) right[n] = row_of<T>(b, col + n);
  float sums[kRows][kCols];
  sums_of(left, right, k, sums);
  with_activation(c.type, [&](auto* tag) {
    for (int m = 0; m < kRows; ++m)
      for (int n = 0; n < kCols; ++n) {
        auto* out = row_of<TEMPER_TYPE(tag)>(c, row + m) + col + n;
        const Vec value(alpha * sums[m][n]);
        store_part(out, accumulate ? load_part(out, 1) + value : value, 1);
      }
  });
}

template <typename T, int kRows, int kCols>
void product(const Rows& a, const Rows& b, const Rows& c, Index row, Index k, float alpha, bool accumulate, Index begin,
             Index end) {
  Index n = begin;
  for (; n + kCols <= end; n += kCols) block<T, kRows, kCols>(a, b, c, row, n, k, alpha, accumulate);
  for (; n < end; ++n) block<T, kRows, 1>(a, b, c, row, n, k, alpha, accumulate);
}

}  // namespace

void few_rows_product(Rows a, Rows b, Rows c, Index m, Index k, float alpha, bool accumulate, Index begin, Index end) {
  with_activation(a.type, [&](auto* tag) {
    using T = TEMPER_TYPE(tag);
    Index row = 0;
    for (; row + 4 <= m; row += 4) product<T, 4, 4>(a, b, c, row, k, alpha, accumulate, begin, end);
    for (; row < m; ++row) product<T, 1, kLoneCols<T>>(a, b, c, row, k, alpha, accumulate, begin, end);
  });
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
