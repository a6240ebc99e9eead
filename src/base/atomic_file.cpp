#include "base/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/mapped_file.h"

namespace temper {
namespace {

constexpr std::size_t kFlushBytes = std::size_t{8} << 20;

void write_all(int fd, std::span<const std::byte> bytes, off_t offset, bool& failed) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      failed = true;
      return;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(n));
    offset += n;
  }
}

}  // namespace

AtomicFile::AtomicFile(const std::filesystem::path& final_path)
    : final_path_(final_path), temporary_path_(final_path.string() + ".partial." + std::to_string(::getpid())) {
  fd_ = ::open(temporary_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail("create");
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_path_.c_str());
}

void AtomicFile::fail(const char* what) const {
  throw IoError("{}: cannot {} ({}); the earlier file, if any, is untouched", final_path_.string(), what,
                std::strerror(errno));
}

void AtomicFile::put(std::size_t offset, std::span<const std::byte> bytes) {
  bool failed = false;
  write_all(fd_, bytes, static_cast<off_t>(offset), failed);
  if (failed) fail("write");
  if (unflushed_.fetch_add(bytes.size()) + bytes.size() < kFlushBytes) return;
  unflushed_ = 0;
  // So that commit has less to wait for. Only a hint: commit's fsync is what counts.
  static_cast<void>(::sync_file_range(fd_, 0, 0, SYNC_FILE_RANGE_WRITE));
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  put(position_, bytes);
  position_ += bytes.size();
}

void AtomicFile::extend(std::size_t bytes) {
  if (::ftruncate(fd_, static_cast<off_t>(position_ + bytes)) != 0) fail("make room for");
  position_ += bytes;
}

void AtomicFile::write_at(std::size_t offset, std::span<const std::byte> bytes) {
  if (offset > position_ || bytes.size() > position_ - offset) throw LogicError("write_at past the end of what was written");
  put(offset, bytes);
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0) fail("flush");
  ::close(fd_);
  fd_ = -1;
  if (::rename(temporary_path_.c_str(), final_path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_path_.c_str());
    errno = error;
    fail("rename");
  }
  // The rename itself must survive a crash.
  const auto folder = final_path_.has_parent_path() ? final_path_.parent_path() : std::filesystem::path(".");
  const int dir = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (dir >= 0) {
    ::fsync(dir);
    ::close(dir);
  }
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string read_file(const std::filesystem::path& path, std::size_t limit) {
  const MappedFile file(path);
  if (file.bytes().size() > limit) {
    throw BadFile("{}: {} bytes, more than the {} allowed for a file of this kind", path.string(), file.bytes().size(),
                  limit);
  }
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

}  // namespace temper
