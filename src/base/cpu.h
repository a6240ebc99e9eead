// Which instruction sets this machine has, and which one is used.
#pragma once

#include <string_view>
#include <vector>

namespace temper {

/// Levels of x86-64 that kernels are compiled for, in rising order; each contains those before it.
enum class Isa { Generic, Avx2, Avx512, Avx512Bf16, Amx };

std::string_view isa_name(Isa isa);  ///< "generic", "avx2", "avx512", "avx512-bf16", "amx"

/// The best level that this CPU has.
Isa detected_isa();

/// The level in use: `detected_isa()`, or the lower one that the environment variable TEMPER_ISA names.
/// Throws BadRecipe if TEMPER_ISA names an unknown level or one that the CPU lacks. Read once.
Isa active_isa();

/// Every level this CPU has, lowest first, so that tests can run each.
std::vector<Isa> available_isas();

/// True where matrix products take bf16 operands in hardware (Avx512Bf16 or Amx).
bool has_bf16_products(Isa isa);

/// True where vectors of `isa`'s width take products of bytes summed in 32 bits: AVX512-VNNI (from Avx512 on) or AVX-VNNI
/// (Avx2). A property of the CPU beside its level.
bool has_byte_products(Isa isa);

}  // namespace temper
