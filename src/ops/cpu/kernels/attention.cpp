#include "ops/cpu/kernels/local.h"
#include "ops/cpu/kernels/simd.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {
namespace {

template <typename T>
void backward(const AttentionGradTask& task) {
  const AttentionTask& t = task.forward;
  const Index d = t.head_dim;
  for (Index i = 0; i < t.keys * d; ++i) task.dk[i] = task.dv[i] = 0.0f;
  float* dq = task.scratch;
  for (Index i = 0; i < t.queries; ++i) {
    const T *q = row_of<T>(t.q, i), *o = row_of<T>(t.out, i), *g = row_of<T>(task.dout, i);
    Vec products(0.0f);
    for_columns(d, [&](Index c, auto get, auto put) {
      products = multiply_add(get(o + c), get(g + c), products);
      put(dq + c, Vec(0.0f));
    });
    const float delta = sum(products);
    const Index end = t.keys - t.queries + i + 1;
    const Index first = t.window > 0 && end > t.window ? end - t.window : 0;
    for (Index j = first; j < end; ++j) {
      const T *k = row_of<T>(t.k, j), *v = row_of<T>(t.v, j);
      Vec score(0.0f), dp(0.0f);
      for_columns(d, [&](Index c, auto get, auto) {
        score = multiply_add(get(q + c), get(k + c), score);
        dp = multiply_add(get(g + c), get(v + c), dp);
      });
      float p[kLanes];
      store(p, exp(Vec(sum(score) * t.scale - t.lse[i * t.lse_stride])));
      const Vec prob(p[0]), ds(p[0] * (sum(dp) - delta) * t.scale);
      for_columns(d, [&](Index c, auto get, auto put) {
        put(task.dv + j * d + c, multiply_add(prob, get(g + c), get(task.dv + j * d + c)));
        put(task.dk + j * d + c, multiply_add(ds, get(q + c), get(task.dk + j * d + c)));
        put(dq + c, multiply_add(ds, get(k + c), get(dq + c)));
      });
    }
    T* out = row_of<T>(task.dq, i);
    for_columns(d, [&](Index c, auto get, auto put) { put(out + c, get(dq + c)); });
  }
}

}  // namespace

Index attention_grad_scratch(Index, Index head_dim) { return (head_dim + kLanes - 1) / kLanes * kLanes; }

void attention_backward(const AttentionGradTask& task) {
  with_activation(task.forward.q.type, [&](auto* tag) { backward<TEMPER_TYPE(tag)>(task); });
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
