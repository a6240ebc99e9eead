#include "ptq/hidden_states.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/error.h"

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

/// A mapping of a new file that has no name any more.
void* map_file(std::size_t bytes) {
  const char* tmpdir = std::getenv("TMPDIR");
  std::string name = (std::filesystem::path(tmpdir && *tmpdir ? tmpdir : "/tmp") / "temper-hidden-XXXXXX").string();
  const int fd = ::mkstemp(name.data());
  if (fd < 0) throw IoError("{}: cannot make a file for hidden states of {} bytes (errno {})", name, bytes, errno);
  ::unlink(name.c_str());
  void* data = MAP_FAILED;
  // Allocated at once: a full disk is an error here, not a signal later.
  const int full = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  if (full == 0) data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const int code = full != 0 ? full : errno;
  ::close(fd);
  if (data == MAP_FAILED)
    throw IoError(
        "{}: no room for hidden states of {} bytes (errno {}); set TMPDIR to another folder, or use fewer calibration "
        "tokens",
        name, bytes, code);
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
