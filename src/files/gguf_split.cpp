#include "files/gguf_split.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "files/gguf.h"

namespace temper::files {
namespace {

constexpr std::string_view kSuffix = ".gguf", kOf = "-of-";
constexpr std::size_t kDigits = 5;

/// The digits at the end of `text`, at least five as printed by %05d, taken off it.
std::optional<std::size_t> take_number(std::string_view& text) {
  std::size_t begin = text.size();
  while (begin > 0 && text[begin - 1] >= '0' && text[begin - 1] <= '9') --begin;
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(text.data() + begin, text.data() + text.size(), number);
  if (text.size() - begin < kDigits || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  text = text.substr(0, begin);
  return number;
}

bool take_suffix(std::string_view& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return false;
  text.remove_suffix(suffix.size());
  return true;
}

}  // namespace

std::optional<SplitName> parse_split_name(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  std::string_view rest = name;
  if (!take_suffix(rest, kSuffix)) return std::nullopt;
  const auto count = take_number(rest);
  if (!count || !take_suffix(rest, kOf)) return std::nullopt;
  const auto number = take_number(rest);
  if (!number || !take_suffix(rest, "-")) return std::nullopt;
  if (*number < 1 || *number > *count || *count > kMaxSplits) return std::nullopt;
  return SplitName{path.parent_path() / rest, *number, *count};
}

std::filesystem::path split_path(const std::filesystem::path& prefix, std::size_t number, std::size_t count) {
  std::filesystem::path path = prefix;
  path += fmt::format("-{:05}{}{:05}{}", number, kOf, count, kSuffix);
  return path;
}

std::filesystem::path split_prefix(const std::filesystem::path& path) {
  return path.extension() == kSuffix ? std::filesystem::path(path).replace_extension() : path;
}

std::vector<std::size_t> assign_splits(std::span<const std::size_t> padded_bytes, std::uint64_t limit) {
  std::vector<std::size_t> parts;
  std::size_t part = 0;
  std::uint64_t used = 0;
  for (const std::size_t bytes : padded_bytes) {
    if (used > 0 && (bytes > limit || used > limit - bytes)) {
      ++part;
      used = 0;
    }
    used += bytes;
    parts.push_back(part);
  }
  return parts;
}

GgufFile::GgufFile(const std::filesystem::path& path) : GgufFile(open_part(path)) {
  const std::uint64_t count = optional_u64(kSplitCountKey).value_or(1);
  if (count <= 1) return;
  const auto name = parse_split_name(path);
  if (!name || name->count != count)
    throw BadFile("{}: one of {} parts of a model; expected a name that ends in -NNNNN-of-{:05}.gguf, as all parts have",
                  origin_, count, count);
  std::vector<GgufFile> parts;
  for (std::size_t number = 1; number <= count; ++number)
    parts.push_back(number == name->number ? std::move(*this) : open_part(split_path(name->prefix, number, name->count)));
  *this = join(std::move(parts));
}

GgufFile GgufFile::join(std::vector<GgufFile> parts) {
  std::uint64_t tensors = 0;
  for (const GgufFile& part : parts) tensors += part.tensors_.size();
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const GgufFile& part = parts[i];
    const auto expect = [&](std::string_view key, std::uint64_t expected) {
      if (const std::uint64_t found = part.get_u64(key); found != expected)
        throw BadFile("{}: key \"{}\": expected {}, found {}; are these parts of one model?", part.origin_, key, expected,
                      found);
    };
    expect(kSplitNoKey, i);
    expect(kSplitCountKey, parts.size());
    expect(kSplitTensorsKey, tensors);
  }
  GgufFile whole = std::move(parts.at(0));
  for (std::size_t i = 1; i < parts.size(); ++i) {
    GgufFile& part = parts[i];
    for (const GgufTensor& tensor : part.tensors_) {
      if (!whole.tensor_index_.emplace(tensor.name, whole.tensors_.size()).second)
        throw BadFile("{}: tensor \"{}\" is in an earlier part, too", part.origin_, tensor.name);
      whole.tensors_.push_back(tensor);
    }
    whole.file_bytes_ += part.file_bytes_;
    std::ranges::move(part.files_, std::back_inserter(whole.files_));
  }
  return whole;
}

}  // namespace temper::files
