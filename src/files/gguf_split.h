// Models cut into several GGUF files, as llama.cpp's gguf-split makes them and llama.cpp opens them:
// PREFIX-00001-of-0000N.gguf and so on. The first part holds the model's keys; each holds split.no (from 0), split.count and
// split.tensors.count (of all parts together), and its own tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace temper::files {

inline constexpr std::string_view kSplitNoKey = "split.no", kSplitCountKey = "split.count",
                                  kSplitTensorsKey = "split.tensors.count";
inline constexpr std::size_t kMaxSplits = 65535;  ///< split.count is a u16.

/// What the name of a part says.
struct SplitName {
  std::filesystem::path prefix;  ///< Up to "-00001-of-00003.gguf", its folder included.
  std::size_t number = 0;        ///< From 1.
  std::size_t count = 0;
};

/// nullopt if the name is not that of a part.
std::optional<SplitName> parse_split_name(const std::filesystem::path& path);
/// The name of part `number` (from 1) of `count`.
std::filesystem::path split_path(const std::filesystem::path& prefix, std::size_t number, std::size_t count);
/// The prefix of the parts of what would be `path` as one file: "m.gguf" → "m".
std::filesystem::path split_prefix(const std::filesystem::path& path);

/// The part (from 0) of each tensor, in order, so that the tensors of a part are at most `limit` bytes; a larger tensor has
/// a part of its own.
std::vector<std::size_t> assign_splits(std::span<const std::size_t> padded_bytes, std::uint64_t limit);

}  // namespace temper::files
