// Products with few rows on the left, as in generation: each weight row is read once and met by every row of a.
#include "ops/cpu/kernels/local.h"
#include "ops/cpu/kernels/simd.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {
namespace {

template <typename T, int kRows>
void product(const Rows& a, const Rows& b, const Rows& c, Index row, Index k, float alpha, bool accumulate, Index begin,
             Index end) {
  for (Index n = begin; n < end; ++n) {
    const T* weight = row_of<T>(b, n);
    Vec total[kRows];
    for (int i = 0; i < kRows; ++i) total[i] = Vec(0.0f);
    for_columns(k, [&](Index i, auto get, auto) {
      const Vec w = get(weight + i);
      for (int m = 0; m < kRows; ++m) total[m] = multiply_add(get(row_of<T>(a, row + m) + i), w, total[m]);
    });
    for (int m = 0; m < kRows; ++m) {
      const float value = alpha * sum(total[m]);
      with_activation(c.type, [&](auto* tag) {
        auto* out = row_of<TEMPER_TYPE(tag)>(c, row + m) + n;
        store_part(out, accumulate ? load_part(out, 1) + Vec(value) : Vec(value), 1);
      });
    }
  }
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
