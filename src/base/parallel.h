// Threads: one parallel loop, over OpenMP. Results never depend on how the range is cut.
#pragma once

#include <cstdint>
#include <functional>

namespace temper {

/// Calls `body(begin, end)` over disjoint pieces that cover [0, n), each at least `grain` long (but the last), on up to
/// `num_threads()` threads. Exceptions thrown by `body` reach the caller. Nested calls run serially.
void parallel_for(std::int64_t n, std::int64_t grain, const std::function<void(std::int64_t, std::int64_t)>& body);

/// Threads that parallel_for and the backend may use; all of the process's CPUs at first.
int num_threads();
void set_num_threads(int n);

}  // namespace temper
