#include "ptq/imatrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "files/gguf.h"

namespace temper::ptq {
namespace {

constexpr std::string_view kSums = ".in_sum2", kCounts = ".counts";
constexpr std::string_view kDatasets = "imatrix.datasets", kChunkCount = "imatrix.chunk_count",
                           kChunkSize = "imatrix.chunk_size";

std::vector<float> floats(const files::GgufFile& file, const files::GgufTensor& tensor) {
  if (tensor.type != files::GgmlType::F32) throw BadFile("{}: tensor {}: expected F32", file.origin(), tensor.name);
  std::vector<float> values(tensor.data.size() / sizeof(float));
  std::memcpy(values.data(), tensor.data.data(), values.size() * sizeof(float));
  return values;
}

void check_values(std::string_view name, std::span<const float> values, const std::string& origin) {
  for (const float x : values)
    if (!(std::isfinite(x) && x >= 0))
      throw BadFile("{}: importance of {} holds {}; expected finite sums of squares", origin, name, x);
}

ImportanceMatrix from_gguf(const files::GgufFile& file) {
  ImportanceMatrix matrix;
  if (const auto type = file.optional_string("general.type"); type && *type != "imatrix")
    throw BadFile("{}: general.type: expected imatrix, found {}; is it a model?", file.origin(), *type);
  matrix.chunks = file.get_u32(kChunkCount);
  matrix.chunk_size = file.get_u32(kChunkSize);
  for (const std::string_view name : file.get_string_array(kDatasets)) matrix.datasets.emplace_back(name);
  for (const files::GgufTensor& tensor : file.tensors()) {
    if (tensor.name.ends_with(kCounts)) {
      const auto name = std::string(tensor.name.substr(0, tensor.name.size() - kCounts.size()));
      if (!file.find(name + std::string(kSums))) throw BadFile("{}: {} without its sums", file.origin(), tensor.name);
    }
    if (!tensor.name.ends_with(kSums)) continue;  // others (".in_sum") are not needed
    const auto name = std::string(tensor.name.substr(0, tensor.name.size() - kSums.size()));
    ImportanceEntry entry;
    entry.sums = floats(file, tensor);
    check_values(name, entry.sums, file.origin());
    for (const float count : floats(file, file.at(name + std::string(kCounts)))) {
      if (!(count >= 0 && count < 0x1p62f)) throw BadFile("{}: count {} of {}", file.origin(), count, name);
      entry.counts.push_back(std::llround(count));
    }
    if (entry.counts.empty() || entry.sums.empty() || entry.sums.size() % entry.counts.size() != 0)
      throw BadFile("{}: {}: {} sums for {} counts", file.origin(), name, entry.sums.size(), entry.counts.size());
    matrix.entries.emplace(name, std::move(entry));
  }
  return matrix;
}

/// Reads little-endian values one after another, never beyond the end.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}
  bool at_end() const { return bytes_.empty(); }
  std::int32_t i32(std::string_view what) {
    std::int32_t value;
    std::memcpy(&value, take(sizeof(value), what).data(), sizeof(value));
    return value;
  }
  /// A length: of so many elements of `size` bytes, which are there.
  std::size_t length(std::string_view what, std::size_t size) {
    const std::int32_t n = i32(what);
    if (n < 0 || static_cast<std::size_t>(n) > bytes_.size() / size)
      throw BadFile("{}: {}: {} announced, {} bytes left; not an importance matrix, or cut off", origin_, what, n,
                    bytes_.size());
    return static_cast<std::size_t>(n);
  }
  std::span<const std::byte> take(std::size_t n, std::string_view what) {
    if (n > bytes_.size())
      throw BadFile("{}: {}: {} bytes expected, {} left; not an importance matrix, or cut off", origin_, what, n,
                    bytes_.size());
    const auto taken = bytes_.first(n);
    bytes_ = bytes_.subspan(n);
    return taken;
  }
  std::string text(std::string_view what) {
    const auto chars = take(length(what, 1), what);
    return {reinterpret_cast<const char*>(chars.data()), chars.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& origin_;
};

ImportanceMatrix from_legacy(std::span<const std::byte> bytes, const std::string& origin) {
  constexpr std::size_t kSmallestEntry = 3 * sizeof(std::int32_t);
  Cursor cursor(bytes, origin);
  ImportanceMatrix matrix;
  const std::size_t entries = cursor.length("entries", kSmallestEntry);
  if (entries == 0) throw BadFile("{}: an importance matrix without entries", origin);
  for (std::size_t i = 0; i < entries; ++i) {
    const std::string name = cursor.text("name of an entry");
    ImportanceEntry entry;
    // Without calls the values count as they stand, as in llama-quantize.
    entry.counts = {std::max<std::int64_t>(1, cursor.i32("calls of an entry"))};
    entry.sums.resize(cursor.length("values of an entry", sizeof(float)));
    if (entry.sums.empty()) throw BadFile("{}: {} has no values", origin, name);
    const auto data = cursor.take(entry.sums.size() * sizeof(float), "values of an entry");
    std::memcpy(entry.sums.data(), data.data(), data.size());
    check_values(name, entry.sums, origin);
    if (!matrix.entries.emplace(name, std::move(entry)).second) throw BadFile("{}: two entries for {}", origin, name);
  }
  if (cursor.at_end()) return matrix;
  matrix.chunks = std::max(0, cursor.i32("chunks"));
  if (!cursor.at_end())
    if (std::string data = cursor.text("name of the data"); !data.empty()) matrix.datasets.push_back(std::move(data));
  return matrix;
}

template <typename T>
void append(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void append_text(std::string& out, const std::string& text) {
  append(out, static_cast<std::int32_t>(text.size()));
  out += text;
}

void write_legacy(const ImportanceMatrix& matrix, const std::filesystem::path& path) {
  std::string out;
  append(out, static_cast<std::int32_t>(matrix.entries.size()));
  for (const auto& [name, entry] : matrix.entries) {
    append_text(out, name);
    const std::int64_t size = std::max<std::int64_t>(1, matrix.chunk_size), most = std::ranges::max(entry.counts);
    const auto calls = static_cast<std::int32_t>((most + size - 1) / size);
    append(out, calls);
    append(out, static_cast<std::int32_t>(entry.sums.size()));
    const std::size_t per_matrix = entry.sums.size() / entry.counts.size();
    for (std::size_t i = 0; i < entry.sums.size(); ++i) {
      const auto count = static_cast<float>(entry.counts[i / per_matrix]);
      append(out, (count == 0.0f ? 1.0f : entry.sums[i] / count) * static_cast<float>(calls));
    }
  }
  append(out, static_cast<std::int32_t>(matrix.chunks));
  append_text(out, matrix.datasets.empty() ? std::string() : matrix.datasets.back());
  AtomicFile file(path);
  file.write(out);
  file.commit();
}

void write_gguf(const ImportanceMatrix& matrix, const std::filesystem::path& path) {
  files::GgufWriter writer(path);
  writer.add_string("general.type", "imatrix");
  writer.add_string_array(kDatasets, matrix.datasets);
  writer.add_u32(kChunkCount, static_cast<std::uint32_t>(matrix.chunks));
  writer.add_u32(kChunkSize, static_cast<std::uint32_t>(matrix.chunk_size));
  for (const auto& [name, entry] : matrix.entries) {
    const auto matrices = static_cast<std::int64_t>(entry.counts.size());
    const std::int64_t cols = static_cast<std::int64_t>(entry.sums.size()) / matrices;
    // One matrix: ggml leaves dimensions of 1 at the slow end out.
    writer.declare_tensor(name + std::string(kSums), files::GgmlType::F32,
                          matrices == 1 ? Shape{cols} : Shape{matrices, cols});
    writer.declare_tensor(name + std::string(kCounts), files::GgmlType::F32, matrices == 1 ? Shape{1} : Shape{matrices, 1});
  }
  for (const auto& [name, entry] : matrix.entries) {
    writer.write(std::as_bytes(std::span(entry.sums)));
    std::vector<float> counts;
    for (const std::int64_t count : entry.counts) counts.push_back(static_cast<float>(count));
    writer.write(std::as_bytes(std::span(counts)));
  }
  writer.commit();
}

}  // namespace

std::vector<float> ImportanceMatrix::importance(std::string_view gguf_name, std::int64_t cols) const {
  const auto found = entries.find(gguf_name);
  if (found == entries.end()) return {};
  const ImportanceEntry& entry = found->second;
  if (entry.counts.size() != 1 || static_cast<std::int64_t>(entry.sums.size()) != cols)
    throw BadFile("importance matrix: {}: {} values for {} matrices, expected {} for one; it is of another model", gguf_name,
                  entry.sums.size(), entry.counts.size(), cols);
  std::vector<float> mean(entry.sums.size(), 1.0f);
  const auto count = static_cast<float>(entry.counts[0]);
  for (std::size_t i = 0; i < mean.size() && count > 0; ++i) mean[i] = entry.sums[i] / count;
  return mean;
}

ImportanceMatrix parse_imatrix(std::span<const std::byte> bytes, const std::string& origin) {
  constexpr std::string_view kMagic = "GGUF";
  if (bytes.size() >= kMagic.size() && std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0)
    return from_gguf(files::GgufFile::parse(bytes, origin));
  return from_legacy(bytes, origin);
}

ImportanceMatrix read_imatrix(const std::filesystem::path& path) {
  const MappedFile file(path);
  return parse_imatrix(file.bytes(), path.string());
}

void write_imatrix(const ImportanceMatrix& matrix, const std::filesystem::path& path) {
  if (path.extension() == ".dat") {
    write_legacy(matrix, path);
  } else {
    write_gguf(matrix, path);
  }
}

}  // namespace temper::ptq
