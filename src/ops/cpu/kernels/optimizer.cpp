// Steps of optimizers with F32 states, and the stochastic rounding of narrower ones.
#include "ops/cpu/kernels/local.h"
#include "ops/cpu/kernels/philox.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {
namespace {

TEMPER_INLINE Vec sign(const Vec& x) {
  Vec r;
  for (int p = 0; p < kParts; ++p) {
    const NativeU above = (NativeU)(x.part[p] > NativeF{}), below = (NativeU)(x.part[p] < NativeF{});
    r.part[p] = (NativeF)((above & 0x3f800000u) | (below & 0xbf800000u));
  }
  return r;
}

}  // namespace

void adamw(float* param, const float* grad, float* m, float* v, Index n, const AdamWFactors& f) {
  const Vec beta1(f.beta1), beta2(f.beta2), rest1(1.0f - f.beta1), rest2(1.0f - f.beta2);
  const Vec step(f.lr * f.correction1), correction2(f.correction2), eps(f.eps), decay(f.decay), grad_scale(f.grad_scale);
  for_columns(n, [&](Index c, auto get, auto put) {
    const Vec g = get(grad + c) * grad_scale;
    const Vec first = beta1 * get(m + c) + rest1 * g;
    const Vec second = beta2 * get(v + c) + rest2 * (g * g);
    put(m + c, first);
    put(v + c, second);
    put(param + c, get(param + c) * decay - step * first / (square_root(second * correction2) + eps));
  });
}

void lion(float* param, const float* grad, float* m, Index n, const LionFactors& f) {
  const Vec beta1(f.beta1), beta2(f.beta2), rest1(1.0f - f.beta1), rest2(1.0f - f.beta2);
  const Vec lr(f.lr), decay(f.decay), grad_scale(f.grad_scale);
  for_columns(n, [&](Index c, auto get, auto put) {
    const Vec g = get(grad + c) * grad_scale, momentum = get(m + c);
    put(param + c, get(param + c) * decay - lr * sign(beta1 * momentum + rest1 * g));
    put(m + c, beta2 * momentum + rest2 * g);
  });
}

void stochastic_bf16(const float* in, std::uint16_t* out, Index n, std::uint64_t seed, std::uint64_t stream,
                     std::uint64_t first) {
  constexpr Index kGroup = 8 * kLanes;  // what sixteen counters serve
  for (Index begin = 0; begin < n; begin += kGroup) {
    Words draws[4];
    philox(seed, stream, first + static_cast<std::uint64_t>(begin / 8), draws);
    for (int k = 0; k < 8; ++k) {
      const Index at = begin + k * kLanes, left = n - at;
      if (left <= 0) break;
      const Vec x = left >= kLanes ? load(in + at) : load_part(in + at, left);
      std::uint16_t bits[kLanes];
      for (int p = 0; p < kParts; ++p) {
        const NativeU u = (NativeU)x.part[p];
        const NativeU finite = (NativeU)((u & 0x7f800000u) != 0x7f800000u);
        const NativeU nan = (NativeU)((NativeI)(u & 0x7fffffffu) > 0x7f800000) & 0x400000u;
        const NativeU draw = (draws[k / 2].part[p] >> (k % 2 * 16)) & 0xffffu;
        const NativeH h = __builtin_convertvector(((u | nan) + (draw & finite)) >> 16, NativeH);
        __builtin_memcpy(bits + p * kNative, &h, sizeof(h));
      }
      for (Index i = 0; i < (left < kLanes ? left : kLanes); ++i) out[at + i] = bits[i];
    }
  }
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
