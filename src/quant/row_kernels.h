// Fast kernels over one encoded row: the same source compiled once per instruction set (isa/row_kernels.cpp), each giving
// the bytes of the scalar definition.
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace temper::quant {

/// How a group is encoded: see int_sym.cpp, q4_0.cpp and q8_0.cpp.
enum class RowRule : std::uint8_t { Int4Sym, Int8Sym, Q4_0, Q8_0 };

struct CodeCounts {
  std::int64_t changed, saturated;
};

/// Kernels of one rule. A row has `cols` elements in groups of `group`, which divides cols. bf16 values are passed as their
/// bits.
struct RowKernels {
  void (*encode_f32)(const float* values, std::int64_t cols, std::int64_t group, unsigned char* encoded);
  void (*encode_bf16)(const std::uint16_t* values, std::int64_t cols, std::int64_t group, unsigned char* encoded);
  void (*decode_f32)(const unsigned char* encoded, std::int64_t cols, std::int64_t group, float* values);
  void (*decode_bf16)(const unsigned char* encoded, std::int64_t cols, std::int64_t group, std::uint16_t* values);
  CodeCounts (*count)(const unsigned char* encoded, const unsigned char* earlier, std::int64_t cols, std::int64_t group);
};

/// Kernels of every rule, in the order of RowRule.
struct RowKernelTable {
  RowKernels rules[4];
};

/// Kernels for an instruction set (the best compiled one within it).
const RowKernelTable& row_kernel_table(Isa isa);

/// Kernels in use: those of active_isa(), or of the one that was set last.
const RowKernels& row_kernels(RowRule rule);
/// Makes codecs use the kernels of `isa`, which the CPU must have; for tests and benchmarks.
void set_row_kernels(Isa isa);

}  // namespace temper::quant
