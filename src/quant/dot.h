// Kernels of products with encoded rows: the same sources compiled once per instruction set (isa/dot.cpp).
#pragma once

#include <cstdint>
#include <string_view>

#include "base/cpu.h"

namespace temper::quant {

/// How a format's rows are multiplied. Decode: decoded into a buffer first; the others are decoded in registers where the
/// instruction set has a kernel for that.
enum class DotRule : std::uint8_t {
  Decode,
  Q4_0,
  Q4_1,
  Q5_0,
  Q5_1,
  Q8_0,
  Q4_K,
  Q5_K,
  Q6_K,
  Int4G32,
  Int4G64,
  Int4G128,
  Int4G32Bf16,
  Int4G128Bf16,
  Tinygemm128Bf16,
  Int8G32,
  Int8G64,
  Int8G128,
  Int8G32Bf16,
  Int8Row,
  Int8RowBf16,
  E4M3Row,
  E4M3RowBf16,
  Nf4,
  Fp4,
  Mxfp4,
};
inline constexpr int kDotRules = static_cast<int>(DotRule::Mxfp4) + 1;

/// The rule of the format of that name.
DotRule dot_rule(std::string_view codec);

/// sums[m, n] = Σ_k weight(n)[k] · x[m, k] for `rows` rows of weights, one after the other. bf16 values are their bits.
struct DotTask {
  const unsigned char* weights = nullptr;  ///< Encoded rows; for the dense kernels rows of x's type.
  std::int64_t rows = 0, row_bytes = 0, cols = 0;
  const void* x = nullptr;  ///< [m, cols], rows x_stride elements apart: f32 or bf16.
  std::int64_t m = 0, x_stride = 0;
  float* sums = nullptr;  ///< [m, rows], rows sums_stride apart.
  std::int64_t sums_stride = 0;
};
using DotKernel = void (*)(const DotTask& task);

/// Kernels of one instruction set. By rule: null where rows are decoded first.
struct DotTable {
  DotKernel dense_f32, dense_bf16;
  DotKernel f32[kDotRules], bf16[kDotRules];
};

/// Kernels in use: those of active_isa(), or of the instruction set that was set last.
const DotTable& dot_table();
/// Makes products use the kernels of `isa`, which the CPU must have; for tests and benchmarks.
void set_dot_kernels(Isa isa);

}  // namespace temper::quant
