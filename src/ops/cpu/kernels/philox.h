// Philox 4x32-10 (base/rng.h), sixteen counters at a time. Internal to kernels.
#pragma once

#include "ops/cpu/kernels/simd.h"

namespace temper::ops::cpu::TEMPER_KERNEL_NS {

typedef std::uint64_t NativeW __attribute__((vector_size(kNative * 8)));

struct Words {
  NativeU part[kParts];
};

/// low and high = the halves of factor · x.
TEMPER_INLINE void multiply(const Words& x, std::uint32_t factor, Words& low, Words& high) {
  for (int p = 0; p < kParts; ++p) {
    const NativeW product = __builtin_convertvector(x.part[p], NativeW) * static_cast<std::uint64_t>(factor);
    low.part[p] = __builtin_convertvector(product, NativeU);
    high.part[p] = __builtin_convertvector(product >> 32, NativeU);
  }
}

/// The words of sixteen counters from `index` on.
TEMPER_INLINE void philox(std::uint64_t seed, std::uint64_t stream, std::uint64_t index, Words c[4]) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const std::uint64_t counter = index + static_cast<std::uint64_t>(lane);
    c[0].part[lane / kNative][lane % kNative] = static_cast<std::uint32_t>(counter);
    c[1].part[lane / kNative][lane % kNative] = static_cast<std::uint32_t>(counter >> 32);
    c[2].part[lane / kNative][lane % kNative] = static_cast<std::uint32_t>(stream);
    c[3].part[lane / kNative][lane % kNative] = static_cast<std::uint32_t>(stream >> 32);
  }
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    Words low0, high0, low1, high1;
    multiply(c[0], 0xD2511F53u, low0, high0);
    multiply(c[2], 0xCD9E8D57u, low1, high1);
    for (int p = 0; p < kParts; ++p) {
      c[0].part[p] = high1.part[p] ^ c[1].part[p] ^ k0;
      c[2].part[p] = high0.part[p] ^ c[3].part[p] ^ k1;
    }
    c[1] = low1;
    c[3] = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

}  // namespace temper::ops::cpu::TEMPER_KERNEL_NS
