#include "quant/row_kernels.h"

#include <atomic>

namespace temper::quant {

// One definition per compilation of isa/row_kernels.cpp.
namespace generic {
extern const RowKernelTable kRowKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const RowKernelTable kRowKernels;
}
namespace avx512 {
extern const RowKernelTable kRowKernels;
}
#endif

namespace {
std::atomic<const RowKernelTable*> table_in_use{nullptr};
}

const RowKernelTable& row_kernel_table([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::Avx512) return avx512::kRowKernels;
  if (isa >= Isa::Avx2) return avx2::kRowKernels;
#endif
  return generic::kRowKernels;
}

const RowKernels& row_kernels(RowRule rule) {
  const RowKernelTable* table = table_in_use.load(std::memory_order_relaxed);
  if (!table) {
    table = &row_kernel_table(active_isa());
    table_in_use.store(table, std::memory_order_relaxed);
  }
  return table->rules[static_cast<int>(rule)];
}

void set_row_kernels(Isa isa) { table_in_use.store(&row_kernel_table(isa), std::memory_order_relaxed); }

}  // namespace temper::quant
