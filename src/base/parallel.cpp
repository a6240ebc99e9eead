#include "base/parallel.h"

#include <omp.h>

#include <algorithm>
#include <exception>

#include "base/error.h"

namespace temper {

int num_threads() { return omp_get_max_threads(); }

void set_num_threads(int n) {
  if (n < 1) throw BadRecipe("threads: expected at least 1, found {}", n);
  omp_set_num_threads(n);
}

void parallel_for(std::int64_t n, std::int64_t grain, const std::function<void(std::int64_t, std::int64_t)>& body) {
  if (n <= 0) return;
  const std::int64_t pieces =
      std::min<std::int64_t>((n + std::max<std::int64_t>(grain, 1) - 1) / std::max<std::int64_t>(grain, 1), num_threads());
  if (pieces <= 1 || omp_in_parallel()) {
    body(0, n);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel for num_threads(static_cast <int>(pieces)) schedule(static, 1)
  for (std::int64_t i = 0; i < pieces; ++i) {
    try {
      body(n * i / pieces, n * (i + 1) / pieces);
    } catch (...) {
#pragma omp critical(temper_parallel_error)
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace temper
