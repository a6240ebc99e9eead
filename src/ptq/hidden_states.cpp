#include "ptq/hidden_states.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/scratch_file.h"

namespace temper::ptq {

struct HiddenStates::Mapping {
  void* data;
  std::size_t bytes;
};

void HiddenStates::Unmap::operator()(Mapping* mapping) const {
  ::munmap(mapping->data, mapping->bytes);
  delete mapping;
}

namespace {

constexpr std::size_t kAlign = 64;

std::size_t state_bytes(std::int64_t tokens, std::int64_t hidden) {
  return (static_cast<std::size_t>(tokens * hidden) * sizeof(float) + kAlign - 1) / kAlign * kAlign;
}

void* map_file(std::size_t bytes) {
  const ScratchFile file(bytes, "hidden states");
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.descriptor(), 0);
  if (data == MAP_FAILED) throw IoError("cannot map {} bytes of hidden states: {}", bytes, std::strerror(errno));
  return data;
}

}  // namespace

HiddenStates::HiddenStates(std::span<const std::int64_t> tokens, std::int64_t hidden, std::size_t memory_limit) {
  std::size_t total = 0;
  for (const std::int64_t n : tokens) total += state_bytes(n, hidden);
  if (total > memory_limit) mapping_.reset(new Mapping{map_file(total), total});
  std::size_t offset = 0;
  for (const std::int64_t n : tokens) {
    if (mapping_) {
      views_.emplace_back(static_cast<std::byte*>(mapping_->data) + offset, DType::F32, Shape{n, hidden});
      offset += state_bytes(n, hidden);
    } else {
      views_.push_back(owned_.emplace_back(DType::F32, Shape{n, hidden}));
    }
  }
}

}  // namespace temper::ptq
