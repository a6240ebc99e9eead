// A parallel loop that hands out tasks as threads become free. Each task writes outputs of its own, so the order does not
// matter.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>

#include "base/parallel.h"

namespace temper::ops::cpu {

/// Threads that run_tasks will use for n tasks: scratch memory is needed once for each.
inline int task_workers(std::int64_t n) {
  return omp_in_parallel() ? 1 : static_cast<int>(std::min<std::int64_t>(n, num_threads()));
}

/// Calls body(task, worker) for every task in [0, n), worker < task_workers(n). An exception ends the loop and reaches the
/// caller.
template <typename Body>
void run_tasks(std::int64_t n, Body&& body) {
  const int workers = task_workers(n);
  if (workers <= 1) {
    for (std::int64_t i = 0; i < n; ++i) body(i, 0);
    return;
  }
  std::exception_ptr error;
#pragma omp parallel for num_threads(workers) schedule(dynamic, 1)
  for (std::int64_t i = 0; i < n; ++i) {
    try {
      body(i, omp_get_thread_num());
    } catch (...) {
#pragma omp critical(temper_task_error)
      if (!error) error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace temper::ops::cpu
