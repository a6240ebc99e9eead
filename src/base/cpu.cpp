#include "base/cpu.h"

#include <array>
#include <cstdlib>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/error.h"

namespace temper {
namespace {

constexpr std::array<std::string_view, 5> kNames = {"generic", "avx2", "avx512", "avx512-bf16", "amx"};

bool has_amx_bf16() {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & (1u << 22)) && (d & (1u << 24));  // AMX-BF16, AMX-TILE
#else
  return false;
#endif
}

Isa chosen_isa() {
  const char* wanted = std::getenv("TEMPER_ISA");
  if (!wanted || !*wanted) return detected_isa();
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] != wanted) continue;
    const Isa isa = static_cast<Isa>(i);
    if (isa > detected_isa()) throw BadRecipe("TEMPER_ISA={}: this CPU has {} at most", wanted, isa_name(detected_isa()));
    return isa;
  }
  throw BadRecipe("TEMPER_ISA={}: expected one of generic, avx2, avx512, avx512-bf16, amx", wanted);
}

}  // namespace

std::string_view isa_name(Isa isa) { return kNames[static_cast<std::size_t>(isa)]; }

Isa detected_isa() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")))
    return Isa::Generic;
  if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")))
    return Isa::Avx2;
  if (!__builtin_cpu_supports("avx512bf16")) return Isa::Avx512;
  return has_amx_bf16() ? Isa::Amx : Isa::Avx512Bf16;
#else
  return Isa::Generic;
#endif
}

Isa active_isa() {
  static const Isa isa = chosen_isa();
  return isa;
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (int i = 0; i <= static_cast<int>(detected_isa()); ++i) isas.push_back(static_cast<Isa>(i));
  return isas;
}

bool has_bf16_products(Isa isa) { return isa >= Isa::Avx512Bf16; }

bool has_byte_products([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (isa >= Isa::Avx512) return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & (1u << 11));
  return isa == Isa::Avx2 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 4));
#else
  return false;
#endif
}

}  // namespace temper
