#include "base/interrupt.h"

#include <unistd.h>

#include <atomic>
#include <csignal>

namespace temper {
namespace {
std::atomic<bool> flag{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void on_signal(int) {
  if (flag.exchange(true)) _exit(130);
}
}  // namespace

void install_interrupt_handler() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

bool interrupted() noexcept { return flag.load(std::memory_order_relaxed); }
void set_interrupted(bool value) noexcept { flag.store(value); }

}  // namespace temper
