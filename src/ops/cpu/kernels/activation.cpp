// SwiGLU and the loss. Compiled with contraction allowed: nothing here decides a code.
#include "ops/cpu/kernels/local.h"
#include "ops/cpu/kernels/simd.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {
namespace {

TEMPER_INLINE Vec sigmoid(const Vec& x) { return Vec(1.0f) / (Vec(1.0f) + exp(Vec(0.0f) - x)); }

/// The largest logit, and Σ exp(logit − largest).
struct Normaliser {
  float largest, total;
};

Normaliser normaliser(const float* row, Index cols) {
  const Index whole = cols / kLanes * kLanes;
  Vec top(row[0]);
  for (Index c = 0; c < whole; c += kLanes) top = max(load(row + c), top);
  float largest = maximum(top);
  for (Index c = whole; c < cols; ++c) largest = row[c] > largest ? row[c] : largest;
  const Vec shift(largest);
  Vec total(0.0f);
  for (Index c = 0; c < whole; c += kLanes) total = total + exp(load(row + c) - shift);
  if (whole < cols) {
    float rest[kLanes];
    for (Index i = 0; i < kLanes; ++i) rest[i] = whole + i < cols ? row[whole + i] : -__builtin_inff();
    total = total + exp(load(rest) - shift);
  }
  return {largest, sum(total)};
}

}  // namespace

void swiglu(Rows gate, Rows up, Rows out, Index rows, Index cols) {
  with_activation(gate.type, [&](auto* tag) {
    using T = TEMPER_TYPE(tag);
    for (Index r = 0; r < rows; ++r) {
      const T *g = row_of<T>(gate, r), *u = row_of<T>(up, r);
      T* y = row_of<T>(out, r);
      for_columns(cols, [&](Index c, auto get, auto put) {
        const Vec x = get(g + c);
        put(y + c, x * sigmoid(x) * get(u + c));
      });
    }
  });
}

void swiglu_backward(Rows gate, Rows up, Rows dout, Rows dgate, Rows dup, Index rows, Index cols) {
  with_activation(gate.type, [&](auto* tag) {
    using T = TEMPER_TYPE(tag);
    for (Index r = 0; r < rows; ++r) {
      const T *g = row_of<T>(gate, r), *u = row_of<T>(up, r), *d = row_of<T>(dout, r);
      T *dg = row_of<T>(dgate, r), *du = row_of<T>(dup, r);
      for_columns(cols, [&](Index c, auto get, auto put) {
        const Vec x = get(g + c), linear = get(u + c), grad = get(d + c), s = sigmoid(x);
        put(dg + c, grad * linear * s * (Vec(1.0f) + x * (Vec(1.0f) - s)));
        put(du + c, grad * x * s);
      });
    }
  });
}

void cross_entropy(Rows logits, const std::int32_t* targets, float grad_scale, float* nll, Rows dlogits, Index rows,
                   Index cols) {
  for (Index r = 0; r < rows; ++r) {
    const float* row = row_of<float>(logits, r);
    const Normaliser n = normaliser(row, cols);
    const float at_target = row[targets[r]];  // read first: dlogits may lie over logits
    nll[r] = __builtin_logf(n.total) + (n.largest - at_target);
    if (!dlogits.data) continue;
    const Vec shift(n.largest), factor(grad_scale / n.total);
    with_activation(dlogits.type, [&](auto* tag) {
      using T = TEMPER_TYPE(tag);
      T* grad = row_of<T>(dlogits, r);
      for_columns(cols, [&](Index c, auto get, auto put) { put(grad + c, exp(get(row + c) - shift) * factor); });
      // At the target again, from f32, so that p − 1 is rounded once.
      const Vec p = exp(Vec(at_target) - shift) * Vec(1.0f / n.total);
      store_part(grad + targets[r], (p - Vec(1.0f)) * Vec(grad_scale), 1);
    });
  }
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
