// What touches weights: merging, checking, stepping. Compiled without contraction: the merge decides codes, and its bits are
// the same on every instruction set.
#include "ops/cpu/kernels/local.h"
#include "ops/cpu/kernels/simd.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {

void merge_lora(Rows base, const float* a, Index a_stride, const float* b, Index b_stride, Index rank, float scale,
                const float* gain, Rows out, Index rows, Index cols) {
  const Vec factor(scale);
  with_storage(base.type, [&](auto* base_tag) {
    with_storage(out.type, [&](auto* out_tag) {
      for (Index n = 0; n < rows; ++n) {
        const Vec whole(gain ? gain[n] : 1.0f);  // a product with 1 changes nothing
        const auto* w = row_of<TEMPER_TYPE(base_tag)>(base, n);
        auto* y = row_of<TEMPER_TYPE(out_tag)>(out, n);
        for_columns(cols, [&](Index c, auto get, auto put) {
          Vec total(0.0f);
          for (Index r = 0; r < rank; ++r) total = total + Vec(b[n * b_stride + r]) * get(a + r * a_stride + c);
          put(y + c, whole * (get(w + c) + factor * total));
        });
      }
    });
  });
}

bool all_finite(Rows x, Index rows, Index cols) {
  bool finite = true;
  with_storage(x.type, [&](auto* tag) {
    for (Index r = 0; r < rows && finite; ++r) {
      const auto* row = row_of<TEMPER_TYPE(tag)>(x, r);
      Vec zeros(0.0f);  // x · 0 is 0 for finite x, NaN otherwise
      for_columns(cols, [&](Index c, auto get, auto) { zeros = zeros + get(row + c) * Vec(0.0f); });
      finite = sum(zeros) == 0.0f;
    }
  });
  return finite;
}

double dot(const float* x, const float* y, Index n) {
  double lanes[kLanes] = {};
  for_columns(n, [&](Index c, auto get, auto) {
    float left[kLanes], right[kLanes];
    store(left, get(x + c));
    store(right, get(y + c));
    for (int i = 0; i < kLanes; ++i) lanes[i] += static_cast<double>(left[i]) * static_cast<double>(right[i]);
  });
  double total = 0.0;
  for (int i = 0; i < kLanes; ++i) total += lanes[i];
  return total;
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
