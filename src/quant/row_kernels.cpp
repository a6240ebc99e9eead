#include "quant/row_kernels.h"

#include <atomic>

namespace temper::quant {
namespace {

std::atomic<int> level_in_use{-1};

int level_of(Isa isa) { return isa >= Isa::Avx512 ? 2 : isa >= Isa::Avx2 ? 1 : 0; }

}  // namespace

int isa_level() {
  int level = level_in_use.load(std::memory_order_relaxed);
  if (level < 0) {
    level = level_of(active_isa());
    level_in_use.store(level, std::memory_order_relaxed);
  }
  return level;
}

void set_row_kernels(Isa isa) { level_in_use.store(level_of(isa), std::memory_order_relaxed); }

}  // namespace temper::quant
