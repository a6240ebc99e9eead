// Kernels of activations in 8 bits: see quant/activations.h.
#pragma once

#include "quant/row_kernels.h"

namespace temper::quant {

/// Kernels over `cols` values of a row: [grid - 1] for f32, and for bf16 as their bits.
struct ActivationKernels {
  void (*f32[2])(const float* x, std::int64_t cols, float* out);
  void (*bf16[2])(const std::uint16_t* x, std::int64_t cols, std::uint16_t* out);
  /// The bits of the largest magnitude: at least 0x7f800000 unless all values are finite.
  std::uint32_t (*largest_f32)(const float* x, std::int64_t cols);
  std::uint32_t (*largest_bf16)(const std::uint16_t* x, std::int64_t cols);
  /// As f32 and bf16, but to codes plus 128, and for each 32 of them the scale that makes the value.
  void (*codes_f32[2])(const float* x, std::int64_t cols, unsigned char* codes, float* scales);
  void (*codes_bf16[2])(const std::uint16_t* x, std::int64_t cols, unsigned char* codes, float* scales);
};
TEMPER_PER_ISA(ActivationKernels, kActivationKernels)

}  // namespace temper::quant
