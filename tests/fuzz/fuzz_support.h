// What fuzz targets share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "base/error.h"

namespace temper::fuzz {

/// Runs one input. A file may be bad or unsupported and nothing else: any other exception is a finding, and ends the
/// process.
template <typename Body>
int run(Body&& body) {
  try {
    body();
  } catch (const BadFile&) {
  } catch (const Unsupported&) {
  }
  return 0;
}

inline std::span<const std::byte> bytes(const std::uint8_t* data, std::size_t size) {
  return std::as_bytes(std::span(data, size));
}

inline std::string_view text(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Reads every byte, so that a sanitizer sees one that is not there; returns how many.
inline std::size_t touch(std::span<const std::byte> data) {
  [[maybe_unused]] volatile std::byte sink{};
  for (const std::byte b : data) sink = b;
  return data.size();
}

/// Ends the process where a promise of the code under test is broken.
inline void require(bool promise) {
  if (!promise) std::abort();
}

}  // namespace temper::fuzz
