// Kernels of the formats of scaled_format.h: what is done element by element, over runs of groups of one row.
#pragma once

#include "quant/row_kernels.h"
#include "quant/scaled_format.h"

namespace temper::quant {

/// A run of `groups` groups of `size` elements each; a group's codes start `stride` bytes after those of the one before.
struct GroupRun {
  std::int64_t size, groups, stride;
};

struct ScaledKernels {
  /// Extents of groups: extremes, or (with `magnitudes`) the largest magnitude in `high`.
  void (*extents_f32)(const float* values, const GroupRun& run, bool magnitudes, Extent* extents);
  void (*extents_bf16)(const std::uint16_t* values, const GroupRun& run, bool magnitudes, Extent* extents);
  void (*round_f32)(Element element, Arithmetic arithmetic, const float* values, const GroupRun& run,
                    const Rounding* roundings, unsigned char* codes);
  void (*round_bf16)(Element element, Arithmetic arithmetic, const std::uint16_t* values, const GroupRun& run,
                     const Rounding* roundings, unsigned char* codes);
  /// `shifted`: decodings have a shift that is added.
  void (*decode_f32)(Element element, bool shifted, const unsigned char* codes, const GroupRun& run,
                     const Decoding* decodings, float* values);
  void (*decode_bf16)(Element element, bool shifted, const unsigned char* codes, const GroupRun& run,
                      const Decoding* decodings, std::uint16_t* values);
  /// Codes of `bits` bits that differ, and those that are one of the two raw codes `ends`.
  CodeCounts (*count)(int bits, const unsigned char* codes, const unsigned char* earlier, const GroupRun& run,
                      const unsigned char* ends);
};

TEMPER_PER_ISA(ScaledKernels, kScaled)

}  // namespace temper::quant
