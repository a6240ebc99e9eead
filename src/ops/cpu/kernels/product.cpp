// Products with few rows on the left, as in generation: each weight row is read once and met by every row of a.
#include "ops/cpu/kernels/local.h"
#include "ops/cpu/kernels/simd.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {
namespace {

/// kRows rows of a by kCols rows of b: that many independent sums hide the latency of each.
template <typename T, int kRows, int kCols>
TEMPER_INLINE void block(const Rows& a, const Rows& b, const Rows& c, Index row, Index col, Index k, float alpha,
                         bool accumulate) {
  Vec total[kRows][kCols];
  for (auto& sums : total)
    for (Vec& sum : sums) sum = Vec(0.0f);
  for_columns(k, [&](Index i, auto get, auto) {
    Vec left[kRows];
    for (int m = 0; m < kRows; ++m) left[m] = get(row_of<T>(a, row + m) + i);
    for (int n = 0; n < kCols; ++n) {
      const Vec right = get(row_of<T>(b, col + n) + i);
      for (int m = 0; m < kRows; ++m) total[m][n] = multiply_add(left[m], right, total[m][n]);
    }
  });
  with_activation(c.type, [&](auto* tag) {
    for (int m = 0; m < kRows; ++m)
      for (int n = 0; n < kCols; ++n) {
        auto* out = row_of<TEMPER_TYPE(tag)>(c, row + m) + col + n;
        const Vec value(alpha * sum(total[m][n]));
        store_part(out, accumulate ? load_part(out, 1) + value : value, 1);
      }
  });
}

template <typename T, int kRows>
void product(const Rows& a, const Rows& b, const Rows& c, Index row, Index k, float alpha, bool accumulate, Index begin,
             Index end) {
  Index n = begin;
  for (; n + 4 <= end; n += 4) block<T, kRows, 4>(a, b, c, row, n, k, alpha, accumulate);
  for (; n < end; ++n) block<T, kRows, 1>(a, b, c, row, n, k, alpha, accumulate);
}

}  // namespace

void few_rows_product(Rows a, Rows b, Rows c, Index m, Index k, float alpha, bool accumulate, Index begin, Index end) {
  with_activation(a.type, [&](auto* tag) {
    using T = TEMPER_TYPE(tag);
    Index row = 0;
    for (; row + 4 <= m; row += 4) product<T, 4>(a, b, c, row, k, alpha, accumulate, begin, end);
    for (; row < m; ++row) product<T, 1>(a, b, c, row, k, alpha, accumulate, begin, end);
  });
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
