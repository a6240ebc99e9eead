#include "base/drop_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace temper {

void drop_pages(std::span<const std::byte> bytes) noexcept {
  const std::uintptr_t page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(bytes.data());
  const std::uintptr_t begin = (address + page - 1) / page * page, end = (address + bytes.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace temper
