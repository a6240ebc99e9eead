// The clock of benchmarks: with one thread (OMP_NUM_THREADS=1) processor time, so that what else the machine does is left
// out, else time as it passes.
#pragma once

#include <chrono>
#include <ctime>

#include "base/parallel.h"

namespace temper::bench {

inline double now() {
  if (num_threads() == 1) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace temper::bench
