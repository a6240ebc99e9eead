// Gated linear units and soft caps. Compiled with contraction allowed: nothing here decides a code.
#include "ops/cpu/kernels/local.h"
#include "ops/cpu/kernels/simd.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {
namespace {

TEMPER_INLINE Vec sigmoid(const Vec& x) { return Vec(1.0f) / (Vec(1.0f) + exp(Vec(0.0f) - x)); }

/// Gate functions are x · sigmoid(inner(x)): the derivative is s · (1 + x · inner'(x) · (1 − s)) with s the sigmoid.
struct SiluGate {
  TEMPER_INLINE Vec inner(const Vec& x) const { return x; }
  TEMPER_INLINE Vec inner_slope_times(const Vec& x) const { return x; }
};
/// GELU's tanh form: 0.5 x (1 + tanh(u)) = x · sigmoid(2u), u = √(2/π) (x + 0.044715 x³).
struct GeluTanhGate {
  static constexpr float kTwice = 1.5957691216057308f, kCubic = 0.044715f;
  TEMPER_INLINE Vec inner(const Vec& x) const { return Vec(kTwice) * x * (Vec(1.0f) + Vec(kCubic) * x * x); }
  TEMPER_INLINE Vec inner_slope_times(const Vec& x) const {
    return Vec(kTwice) * x * (Vec(1.0f) + Vec(3.0f * kCubic) * x * x);
  }
};
template <typename Body>
TEMPER_INLINE void with_gate(Gate kind, Body&& body) {
  if (kind == Gate::GeluTanh)
    body(GeluTanhGate());
  else
    body(SiluGate());
}

}  // namespace

void glu(Gate kind, Rows gate, Rows up, Rows out, Index rows, Index cols) {
  with_gate(kind, [&](auto function) {
    with_activation(gate.type, [&](auto* tag) {
      using T = TEMPER_TYPE(tag);
      for (Index r = 0; r < rows; ++r) {
        const T *g = row_of<T>(gate, r), *u = row_of<T>(up, r);
        T* y = row_of<T>(out, r);
        for_columns(cols, [&](Index c, auto get, auto put) {
          const Vec x = get(g + c);
          put(y + c, x * sigmoid(function.inner(x)) * get(u + c));
        });
      }
    });
  });
}

void glu_backward(Gate kind, Rows gate, Rows up, Rows dout, Rows dgate, Rows dup, Index rows, Index cols) {
  with_gate(kind, [&](auto function) {
    with_activation(gate.type, [&](auto* tag) {
      using T = TEMPER_TYPE(tag);
      for (Index r = 0; r < rows; ++r) {
        const T *g = row_of<T>(gate, r), *u = row_of<T>(up, r), *d = row_of<T>(dout, r);
        T *dg = row_of<T>(dgate, r), *du = row_of<T>(dup, r);
        for_columns(cols, [&](Index c, auto get, auto put) {
          const Vec x = get(g + c), linear = get(u + c), grad = get(d + c), s = sigmoid(function.inner(x));
          put(dg + c, grad * linear * s * (Vec(1.0f) + function.inner_slope_times(x) * (Vec(1.0f) - s)));
          put(du + c, grad * x * s);
        });
      }
    });
  });
}

void softcap(float* x, Index n, float factor, float cap) {
  const Vec inner(factor / cap), outer(cap);
  for_columns(n, [&](Index c, auto get, auto put) { put(x + c, outer * tanh(get(x + c) * inner)); });
}

void softcap_backward(Rows y, float cap, Rows grad, Index rows, Index cols) {
  const Vec inverse(1.0f / cap), one(1.0f);
  with_activation(grad.type, [&](auto* tag) {
    for (Index r = 0; r < rows; ++r) {
      const float* value = row_of<float>(y, r);
      auto* g = row_of<TEMPER_TYPE(tag)>(grad, r);
      for_columns(cols, [&](Index c, auto get, auto put) {
        const Vec t = get(value + c) * inverse;
        put(g + c, get(g + c) * (one - t * t));
      });
    }
  });
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
