#include "base/checksum.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

#include "base/error.h"
#include "base/mapped_file.h"

namespace temper {

struct Checksum::State {
  XXH3_state_t* xxh = XXH3_createState();
  State() {
    if (xxh == nullptr || XXH3_64bits_reset(xxh) != XXH_OK) throw OutOfMemory("no memory for a checksum's state");
  }
  ~State() { XXH3_freeState(xxh); }
};

Checksum::Checksum() : state_(std::make_unique<State>()) {}
Checksum::~Checksum() = default;

void Checksum::add(std::span<const std::byte> bytes) {
  if (!bytes.empty()) XXH3_64bits_update(state_->xxh, bytes.data(), bytes.size());
}

std::string Checksum::hex() const { return fmt::format("{:016x}", XXH3_64bits_digest(state_->xxh)); }

std::string checksum_of(std::span<const std::byte> bytes) {
  return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size()));
}

std::string checksum_of_file(const std::filesystem::path& path, std::size_t* size) {
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  const MappedFile file(path);
  const std::span<const std::byte> bytes = file.bytes();
  Checksum checksum;
  for (std::size_t begin = 0; begin < bytes.size(); begin += kPiece) {
    const std::span<const std::byte> piece = bytes.subspan(begin, std::min(kPiece, bytes.size() - begin));
    checksum.add(piece);
    file.release(piece);
  }
  if (size) *size = bytes.size();
  return checksum.hex();
}

}  // namespace temper
