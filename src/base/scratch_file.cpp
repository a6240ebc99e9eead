#include "base/scratch_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "base/error.h"

namespace temper {

ScratchFile::ScratchFile(std::size_t bytes, std::string_view what) : size_(bytes) {
  const char* tmpdir = std::getenv("TMPDIR");
  std::string name = (std::filesystem::path(tmpdir && *tmpdir ? tmpdir : "/tmp") / "temper-XXXXXX").string();
  fd_ = ::mkstemp(name.data());
  if (fd_ < 0) throw IoError("{}: cannot make a file for {} ({} bytes): {}", name, what, bytes, std::strerror(errno));
  ::unlink(name.c_str());
  const int full = bytes == 0 ? 0 : ::posix_fallocate(fd_, 0, static_cast<off_t>(bytes));
  if (full == 0) return;
  ::close(fd_);
  throw IoError("{}: no room for {} ({} bytes): {}; set TMPDIR to another folder", name, what, bytes, std::strerror(full));
}

ScratchFile::~ScratchFile() { ::close(fd_); }

void ScratchFile::write(std::size_t offset, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) throw IoError("temporary file: writing {} bytes: {}", bytes.size(), std::strerror(errno));
    offset += static_cast<std::size_t>(done);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
}

void ScratchFile::read(std::size_t offset, std::span<std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t done = ::pread(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) throw IoError("temporary file: reading {} bytes: {}", bytes.size(), std::strerror(errno));
    offset += static_cast<std::size_t>(done);
    bytes = bytes.subspan(static_cast<std::size_t>(done));
  }
}

void ScratchFile::read_ahead(std::size_t offset, std::size_t bytes) const noexcept {
  ::posix_fadvise(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_WILLNEED);
}

}  // namespace temper
