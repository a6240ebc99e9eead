// Files that appear whole or not at all: written beside their final name, flushed to the disk, then renamed.
#pragma once

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace temper {

/// A file being written aside. `commit` makes it visible under its final name; without it, destruction removes what was
/// written and any earlier file of that name stays untouched. Throws IoError naming the path (a full disk included).
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& final_path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  /// Makes room for `bytes` more, all zero until written to.
  void extend(std::size_t bytes);
  /// Overwrites bytes at an offset already written or made room for; the write position stays. May be called from many
  /// threads at once.
  void write_at(std::size_t offset, std::span<const std::byte> bytes);
  std::size_t position() const { return position_; }
  void commit();

 private:
  [[noreturn]] void fail(const char* what) const;
  void put(std::size_t offset, std::span<const std::byte> bytes);

  std::filesystem::path final_path_, temporary_path_;
  int fd_ = -1;
  std::size_t position_ = 0;
  std::atomic<std::size_t> unflushed_ = 0;  // bytes written since the disk was last told to get to work
};

/// Writes a whole text file atomically.
void write_file(const std::filesystem::path& path, std::string_view text);

/// Reads a whole text file; throws BadFile if it is missing or larger than `limit` bytes.
std::string read_file(const std::filesystem::path& path, std::size_t limit = std::size_t{1} << 30);

}  // namespace temper
