// GGUF version 3 (2 is read too, the same layout), little endian: key/value pairs and tensors, read by mapping, written by
// streaming. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "base/atomic_file.h"
#include "base/mapped_file.h"
#include "files/ggml_type.h"
#include "tensor/shape.h"

namespace temper::files {

/// Type ids of values, as in the file.
enum class GgufType : std::uint32_t { U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64 };

std::string_view gguf_type_name(GgufType type);  ///< "u8" … "f64", "bool", "string", "array".

/// An array of one element type (no arrays of arrays). Strings are listed; anything else stays packed in `bytes`, little
/// endian.
struct GgufArray {
  GgufType type = GgufType::U8;
  std::uint64_t count = 0;
  std::span<const std::byte> bytes;
  std::vector<std::string_view> strings;
};

/// A value; the alternative's index is its GgufType. Strings and arrays point into the file.
using GgufValue = std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t, std::int32_t, float,
                               bool, std::string_view, GgufArray, std::uint64_t, std::int64_t, double>;

inline GgufType gguf_type_of(const GgufValue& value) { return static_cast<GgufType>(value.index()); }

struct GgufKeyValue {
  std::string_view key;
  GgufValue value;
};

/// One tensor. Rows lie one after the other, each a whole number of blocks. `data` is aligned to the file's alignment within
/// the file.
struct GgufTensor {
  std::string_view name;
  GgmlType type = GgmlType::F32;
  Shape shape;  ///< Slowest dimension first (the reverse of the file's order).
  std::span<const std::byte> data;
};

/// A mapped GGUF file. Move-only; names, strings and data live as long as it does.
class GgufFile {
 public:
  /// Checks every count, length, type and offset against the file before use, duplicates and overlaps too. The name of any
  /// part of a split model (gguf_split.h) opens all of them. Throws BadFile; Unsupported for big-endian files, version 1,
  /// nested arrays.
  explicit GgufFile(const std::filesystem::path& path);
  /// One file over bytes that outlive the result.
  static GgufFile parse(std::span<const std::byte> bytes, std::string origin);
  /// The parts of a split model, at least one, in order: the first one's keys and everybody's tensors. Throws BadFile where
  /// their keys say that they are not the parts of one model, or a tensor is there twice.
  static GgufFile join(std::vector<GgufFile> parts);

  std::uint32_t version() const { return version_; }
  std::size_t alignment() const { return alignment_; }
  const std::string& origin() const { return origin_; }
  void release(std::span<const std::byte> bytes) const;                ///< See MappedFile::release.
  std::uint64_t file_bytes() const { return file_bytes_; }             ///< Of all parts.
  const std::vector<GgufKeyValue>& values() const { return values_; }  ///< In file order.
  const std::vector<GgufTensor>& tensors() const { return tensors_; }  ///< In file order.

  const GgufTensor* find(std::string_view name) const;  ///< Null if there is none.
  const GgufTensor& at(std::string_view name) const;    ///< Throws BadFile if there is none.
  const GgufValue* find_value(std::string_view key) const;

  /// Values that must be there. Throws BadFile naming the file, the key, the type expected and the one found. Integer
  /// getters take any integer type whose value fits; `get_f32` takes f32 and f64.
  std::uint32_t get_u32(std::string_view key) const;
  std::uint64_t get_u64(std::string_view key) const;
  float get_f32(std::string_view key) const;
  bool get_bool(std::string_view key) const;
  std::string_view get_string(std::string_view key) const;
  std::span<const std::string_view> get_string_array(std::string_view key) const;
  std::vector<std::int64_t> get_int_array(std::string_view key) const;  ///< Any integer or bool element type.
  std::vector<float> get_f32_array(std::string_view key) const;

  /// The same where the key may be absent; a wrong type is still a BadFile.
  std::optional<std::uint32_t> optional_u32(std::string_view key) const;
  std::optional<std::uint64_t> optional_u64(std::string_view key) const;
  std::optional<float> optional_f32(std::string_view key) const;
  std::optional<bool> optional_bool(std::string_view key) const;
  std::optional<std::string_view> optional_string(std::string_view key) const;
  std::optional<std::span<const std::string_view>> optional_string_array(std::string_view key) const;
  std::optional<std::vector<std::int64_t>> optional_int_array(std::string_view key) const;
  std::optional<std::vector<float>> optional_f32_array(std::string_view key) const;

 private:
  friend class GgufParser;
  GgufFile() = default;
  static GgufFile open_part(const std::filesystem::path& path);
  /// What `convert` (to an optional) makes of a key's value: nullopt if the key is absent, BadFile if it cannot be
  /// converted.
  template <typename Convert>
  auto optional_as(std::string_view key, std::string_view expected, Convert convert) const
      -> decltype(convert(std::declval<const GgufValue&>()));
  template <typename T>
  T present(std::optional<T> value, std::string_view key) const;

  std::string origin_;
  std::vector<MappedFile> files_;  // none where the bytes are the caller's
  std::uint64_t file_bytes_ = 0;
  std::uint32_t version_ = 0;
  std::size_t alignment_ = 32;
  std::vector<GgufKeyValue> values_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, std::size_t> value_index_, tensor_index_;
};

/// Writes a version 3 file: all key/values and tensors first, then the tensors' bytes in declared order. Nothing appears
/// under `path` until `commit`. LogicError for misuse (duplicate key or name, declaring after the first byte, too many or
/// too few bytes); IoError where the system refuses.
///
/// With a limit on the bytes of tensors in a file (0: none), a model beyond it becomes parts (gguf_split.h) whose names are
/// made of `path`'s: see paths().
class GgufWriter {
 public:
  explicit GgufWriter(const std::filesystem::path& path, std::size_t alignment = 32, std::uint64_t split_bytes = 0);
  ~GgufWriter();

  void add_u8(std::string_view key, std::uint8_t value) { add_value(key, value); }
  void add_u32(std::string_view key, std::uint32_t value) { add_value(key, value); }
  void add_i32(std::string_view key, std::int32_t value) { add_value(key, value); }
  void add_u64(std::string_view key, std::uint64_t value) { add_value(key, value); }
  void add_f32(std::string_view key, float value) { add_value(key, value); }
  void add_bool(std::string_view key, bool value) { add_value(key, value); }
  void add_string(std::string_view key, std::string_view value) { add_value(key, value); }
  void add_string_array(std::string_view key, std::span<const std::string> values);
  void add_i32_array(std::string_view key, std::span<const std::int32_t> values);
  void add_u32_array(std::string_view key, std::span<const std::uint32_t> values);
  void add_f32_array(std::string_view key, std::span<const float> values);
  void add_bool_array(std::string_view key, std::span<const bool> values);
  /// Any value, such as one read from another file. `general.alignment` is the constructor's business: skipped here.
  void add_value(std::string_view key, const GgufValue& value);

  /// Shape slowest dimension first, rank 1 to 4; the last extent is a multiple of the type's block.
  void declare_tensor(std::string_view name, GgmlType type, const Shape& shape);

  /// The next bytes: any cut of the tensors' data laid end to end (padding is the writer's business).
  void write(std::span<const std::byte> bytes);
  /// In place of `write`: writes the keys and makes room for the tensors, whose bytes then come in any order, each once.
  void begin_data();
  /// Bytes of one tensor (as they were declared, from 0 on) from `offset` on. May be called from many threads at once.
  void write_at(std::size_t tensor, std::size_t offset, std::span<const std::byte> bytes);
  /// Makes the file, or all parts, visible; the first part comes last, so that where it is, all are.
  void commit();
  /// The files, in order: known from begin_data on.
  const std::vector<std::filesystem::path>& paths() const { return paths_; }

 private:
  struct Entry {
    std::string name;
    GgmlType type;
    Shape shape;
    std::size_t bytes, part = 0, offset = 0, written = 0;
  };
  struct Part;  // one file
  void add_pair(std::string_view key, const GgufValue& value);
  void clear_pairs();  // but for what every file says
  void place_tensors();
  void write_head(std::size_t part);

  std::filesystem::path path_;
  std::string origin_;
  std::size_t alignment_;
  std::uint64_t split_bytes_;
  std::string pairs_;  // serialised key/values
  std::uint64_t pair_count_ = 0;
  std::unordered_set<std::string> keys_, names_;
  std::vector<Entry> tensors_;
  std::vector<std::filesystem::path> paths_;
  std::vector<Part> parts_;
  bool streaming_ = false;
  std::size_t current_ = 0;  // the tensor that write() is in
};

}  // namespace temper::files
