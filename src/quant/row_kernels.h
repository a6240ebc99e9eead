// Fast kernels over one encoded row: the same source compiled once per instruction set (isa/*.cpp, one file per family of
// formats), each giving the bytes of the scalar definition.
#pragma once

#include <cstdint>

#include "base/cpu.h"

namespace temper::quant {

struct CodeCounts {
  std::int64_t changed, saturated;
};

/// Kernels of one format. A row has `cols` elements in groups of `group`, which divides cols. bf16 values are passed as
/// their bits. Formats that are only read have no encode and count (nullptr).
struct RowKernels {
  void (*encode_f32)(const float* values, std::int64_t cols, std::int64_t group, unsigned char* encoded);
  void (*encode_bf16)(const std::uint16_t* values, std::int64_t cols, std::int64_t group, unsigned char* encoded);
  void (*decode_f32)(const unsigned char* encoded, std::int64_t cols, std::int64_t group, float* values);
  void (*decode_bf16)(const unsigned char* encoded, std::int64_t cols, std::int64_t group, std::uint16_t* values);
  CodeCounts (*count)(const unsigned char* encoded, const unsigned char* earlier, std::int64_t cols, std::int64_t group);
};

/// fit_weighted and round of one row, for formats whose fit is a search; `importance` may be null.
struct SearchKernels {
  void (*fit)(const float* values, const float* importance, std::int64_t cols, float* params);
  void (*round)(const float* values, const float* params, std::int64_t cols, unsigned char* encoded);
};

/// Codec::reround of one row.
struct KeptKernels {
  void (*round)(const float* values, std::int64_t cols, unsigned char* encoded);
};

/// The compilation in use: that of active_isa(), or of the instruction set that was set last (the best one within it).
int isa_level();
/// Makes codecs use the kernels of `isa`, which the CPU must have; for tests and benchmarks.
void set_row_kernels(Isa isa);

/// Kernels of one kind, one pointer per compilation; TEMPER_PER_ISA makes them.
template <typename Kernels>
struct PerIsa {
  const Kernels* levels[3];

  const Kernels& in_use() const { return *levels[isa_level()]; }
};

/// Declares `name`, which a file of isa/ defines as `const Kernels name` in namespace temper::quant::TEMPER_ISA_LEVEL, and
/// a PerIsa<Kernels> of the same name that stands for all its compilations. For use in namespace temper::quant.
#if defined(__x86_64__)
#define TEMPER_PER_ISA(Kernels, name) \
  namespace generic {                 \
  extern const Kernels name;          \
  }                                   \
  namespace avx2 {                    \
  extern const Kernels name;          \
  }                                   \
  namespace avx512 {                  \
  extern const Kernels name;          \
  }                                   \
  inline constexpr PerIsa<Kernels> name{{&generic::name, &avx2::name, &avx512::name}};
#else
#define TEMPER_PER_ISA(Kernels, name) \
  namespace generic {                 \
  extern const Kernels name;          \
  }                                   \
  inline constexpr PerIsa<Kernels> name{{&generic::name, &generic::name, &generic::name}};
#endif

}  // namespace temper::quant
