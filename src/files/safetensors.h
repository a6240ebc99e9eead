// safetensors: u64 header length (little endian), a JSON header, the tensors' bytes. Read by mapping, written by streaming.
// Format: https://github.com/huggingface/safetensors (README, "Format").
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/atomic_file.h"
#include "base/mapped_file.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace temper::files {

/// One tensor of a file. `data` points into the mapping and may be unaligned for its dtype: copy elements out, or check.
struct SafetensorsTensor {
  std::string name;
  DType dtype = DType::F32;
  Shape shape;
  std::span<const std::byte> data;
};

using SafetensorsMetadata = std::map<std::string, std::string>;

/// A mapped safetensors file. Move-only; the tensors' data live as long as it does.
class SafetensorsFile {
 public:
  /// Maps and checks the whole header before anything is believed: lengths against the file, shapes against byte counts,
  /// ranges without overlap or hole. Throws BadFile; Unsupported, naming the tensor, for a dtype of the format that temper
  /// has no use for (floats below 8 bits, unsigned integers above 8 bits, complex).
  explicit SafetensorsFile(const std::filesystem::path& path);
  /// The same over bytes that outlive the result.
  static SafetensorsFile parse(std::span<const std::byte> bytes, std::string origin);

  const std::vector<SafetensorsTensor>& tensors() const { return tensors_; }  ///< In the order of their bytes.
  const SafetensorsTensor* find(std::string_view name) const;                 ///< Null if there is none.
  const SafetensorsTensor& at(std::string_view name) const;                   ///< Throws BadFile if there is none.
  const SafetensorsMetadata& metadata() const { return metadata_; }           ///< The header's `__metadata__`.
  /// See MappedFile::release.
  void release(std::span<const std::byte> bytes) const {
    if (file_) file_->release(bytes);
  }
  const std::string& origin() const { return origin_; }

 private:
  SafetensorsFile() = default;
  void read_header(std::span<const std::byte> bytes);
  void read_tensors(std::string_view header, std::span<const std::byte> data);
  void check_coverage(std::span<const std::byte> data) const;

  std::string origin_;
  std::optional<MappedFile> file_;
  std::vector<SafetensorsTensor> tensors_;
  std::unordered_map<std::string_view, std::size_t> index_;  // keys live in tensors_, whose buffer moves with it
  SafetensorsMetadata metadata_;
};

/// The weights of a Hugging Face folder: `<stem>.safetensors`, or the shards named by `<stem>.safetensors.index.json`.
class ShardedSafetensors {
 public:
  /// Throws BadFile if neither file is there, a shard lies outside the folder, a tensor of the index is missing from its
  /// shard or stands in two, or anything is wrong with a shard.
  explicit ShardedSafetensors(const std::filesystem::path& folder, std::string_view stem = "model");

  const std::vector<SafetensorsTensor>& tensors() const {
    return tensors_;
  }  ///< Shard by shard, in the order of their bytes.
  const SafetensorsTensor* find(std::string_view name) const;
  const SafetensorsTensor& at(std::string_view name) const;          ///< Throws BadFile if there is none.
  const SafetensorsMetadata& metadata() const { return metadata_; }  ///< Of all shards; the first that has a key wins.
  void release(std::span<const std::byte> bytes) const;              ///< See MappedFile::release.
  const std::string& origin() const { return origin_; }

 private:
  void read_index(const std::filesystem::path& folder, const std::filesystem::path& index_path);
  void collect();

  std::string origin_;
  std::vector<SafetensorsFile> shards_;
  std::vector<SafetensorsTensor> tensors_;
  std::unordered_map<std::string_view, std::size_t> index_;
  SafetensorsMetadata metadata_;
};

/// What a writer is told of a tensor before its bytes come.
struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::F32;
  Shape shape;
  std::size_t bytes() const { return static_cast<std::size_t>(shape.numel()) * dtype_size(dtype); }
};

/// Writes a file whose tensors are all declared first and whose bytes then stream through, in the declared order. Nothing
/// appears under `path` until `commit`. IoError where the system refuses.
class SafetensorsWriter {
 public:
  /// Throws LogicError for a duplicate or reserved name.
  SafetensorsWriter(const std::filesystem::path& path, const std::vector<SafetensorsEntry>& entries,
                    const SafetensorsMetadata& metadata = {{"format", "pt"}});

  /// The next bytes: any cut of the tensors' data, laid end to end. Throws LogicError beyond what was declared.
  void write(std::span<const std::byte> bytes);
  /// Throws LogicError if bytes are missing.
  void commit();

 private:
  std::string origin_;
  AtomicFile file_;
  std::size_t remaining_ = 0;
};

inline constexpr std::size_t kDefaultShardBytes = 5'000'000'000;

/// Writes a folder's weights: one file if they fit `max_shard_bytes`, else shards and an index, all of which appear at
/// `commit`, the index last. Tensors are never cut. Files that an earlier save left under names which would shadow this one
/// are removed.
class ShardedSafetensorsWriter {
 public:
  ShardedSafetensorsWriter(const std::filesystem::path& folder, const std::vector<SafetensorsEntry>& entries,
                           const SafetensorsMetadata& metadata = {{"format", "pt"}},
                           std::size_t max_shard_bytes = kDefaultShardBytes, std::string_view stem = "model");

  /// As SafetensorsWriter::write, over all shards.
  void write(std::span<const std::byte> bytes);
  void commit();

 private:
  std::filesystem::path folder_;
  std::string stem_;
  std::vector<std::string> names_;                           // file name of each shard
  std::vector<std::unique_ptr<SafetensorsWriter>> writers_;  // one per shard
  std::vector<std::size_t> shard_bytes_;
  std::size_t current_ = 0, written_in_current_ = 0;
  std::string index_text_;  // empty for a single file
};

}  // namespace temper::files
