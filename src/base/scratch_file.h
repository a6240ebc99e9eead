// Files without a name, for what shall not stay in memory.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace temper {

/// A file of a fixed size in TMPDIR, or in /tmp where that is unset. It has no name any more, and is gone when this is,
/// however the process ends. Where the folder lies in memory (tmpfs), so does the file.
class ScratchFile {
 public:
  /// All of it is allocated at once: a full disk is an error here. Throws IoError, naming the folder and `what` is kept.
  ScratchFile(std::size_t bytes, std::string_view what);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  std::size_t size() const { return size_; }
  int descriptor() const { return fd_; }

  // Ranges within the file. IoError where the system reports one.
  void write(std::size_t offset, std::span<const std::byte> bytes) const;
  void read(std::size_t offset, std::span<std::byte> bytes) const;
  /// The range will be read soon: the system may begin to.
  void read_ahead(std::size_t offset, std::size_t bytes) const noexcept;

 private:
  std::size_t size_;
  int fd_ = -1;
};

}  // namespace temper
