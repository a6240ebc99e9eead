// Read-only memory-mapped files.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace temper {

/// A whole file, mapped read-only. Move-only; unmapped on destruction. An empty file gives an empty span.
class MappedFile {
 public:
  /// Throws BadFile if the file is missing or no regular file, IoError if it cannot be mapped.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  /// Lets go of the memory behind those bytes that fill whole pages; they are read from the file again when they are next
  /// looked at. Nothing for bytes of other memory.
  void release(std::span<const std::byte> bytes) const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace temper
