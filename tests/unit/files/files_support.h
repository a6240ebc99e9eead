// What the tests of file formats share.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "temporary_folder.h"

namespace temper::files {

inline std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(TEMPER_TEST_DATA) / "files" / name;
}

/// A copy on the heap of exactly the text's size, so that a sanitizer sees a read past its end.
class Bytes {
 public:
  explicit Bytes(std::string_view text) : data_(new std::byte[text.size()]), size_(text.size()) {
    if (size_) std::memcpy(data_.get(), text.data(), size_);
  }
  std::span<const std::byte> span() const { return {data_.get(), size_}; }

 private:
  std::unique_ptr<std::byte[]> data_;
  std::size_t size_;
};

template <typename T>
std::vector<T> elements(std::span<const std::byte> bytes) {
  std::vector<T> out(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

template <typename T>
std::string packed(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

/// Expects `body` to throw `Kind` with a message that holds every one of `parts`.
template <typename Kind, typename Body>
void expect_error(Body&& body, const std::vector<std::string>& parts) {
  try {
    body();
    ADD_FAILURE() << "nothing was thrown; expected a message with \"" << (parts.empty() ? "" : parts.back()) << '"';
  } catch (const Kind& error) {
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << part << " in: " << error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "another kind of error: " << error.what();
  }
}

}  // namespace temper::files
