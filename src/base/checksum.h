// XXH3-64, for checkpoints, fingerprints and codes.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace temper {

/// XXH3-64 over parts that arrive one after another, as 16 hexadecimal digits.
class Checksum {
 public:
  Checksum();
  ~Checksum();
  Checksum(const Checksum&) = delete;
  Checksum& operator=(const Checksum&) = delete;

  void add(std::span<const std::byte> bytes);
  void add(std::string_view text) { add(std::as_bytes(std::span(text.data(), text.size()))); }
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string checksum_of(std::span<const std::byte> bytes);
inline std::string checksum_of(std::string_view text) {
  return checksum_of(std::as_bytes(std::span(text.data(), text.size())));
}

/// Of a whole file, read piece by piece: no more of it is in memory. `size` = its bytes, if not null. Throws BadFile,
/// IoError.
std::string checksum_of_file(const std::filesystem::path& path, std::size_t* size = nullptr);

}  // namespace temper
