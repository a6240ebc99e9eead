#include "base/checksum.h"

#include <fmt/format.h>
#include <xxhash.h>

#include "base/error.h"

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

}  // namespace temper
