#include "base/resident_memory.h"

#include <fstream>
#include <string>

namespace temper {
namespace {

/// A line of /proc/self/status ("VmRSS:     1234 kB"; proc_pid_status(5)) in bytes.
std::size_t status_bytes(const std::string& key) {
  std::ifstream file("/proc/self/status");
  for (std::string word; file >> word;) {
    if (word != key) continue;
    std::size_t kilobytes = 0;
    return file >> kilobytes ? kilobytes * 1024 : 0;
  }
  return 0;
}

}  // namespace

std::size_t resident_bytes() { return status_bytes("VmRSS:"); }

std::size_t peak_resident_bytes() { return status_bytes("VmHWM:"); }

void reset_peak_resident() { std::ofstream("/proc/self/clear_refs") << 5; }  // proc_pid_clear_refs(5)

}  // namespace temper
