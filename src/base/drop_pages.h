// Pages of mapped files that are not needed for now.
#pragma once

#include <cstddef>
#include <span>

namespace temper {

/// Lets go of the whole pages within `bytes` of a mapped file (and of nothing else: other memory would lose what it holds).
/// They count as this process's memory no more; the next look at them reads the file, or what the system still keeps of it.
void drop_pages(std::span<const std::byte> bytes) noexcept;

}  // namespace temper
