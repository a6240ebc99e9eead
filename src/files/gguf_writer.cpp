// Writing GGUF.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <memory>

#include "base/error.h"
#include "files/gguf.h"
#include "files/gguf_split.h"

namespace temper::files {
namespace {

constexpr std::string_view kAlignmentKey = "general.alignment";
constexpr std::uint32_t kVersion = 3;
constexpr std::size_t kDefaultAlignment = 32;            // what a file without the key means
constexpr std::size_t kMaxNameBytes = 63, kMaxRank = 4;  // ggml's GGML_MAX_NAME (with its zero byte) and GGML_MAX_DIMS

template <typename T>
void append(std::string& out, const T& value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void append_text(std::string& out, std::string_view text) {
  append(out, std::uint64_t{text.size()});
  out.append(text);
}

void append_array(std::string& out, const GgufArray& array) {
  append(out, array.type);
  append(out, array.count);
  out.append(reinterpret_cast<const char*>(array.bytes.data()), array.bytes.size());
  for (const std::string_view text : array.strings) append_text(out, text);
}

void append_value(std::string& out, const GgufValue& value) {
  append(out, gguf_type_of(value));
  const auto visitor = [&](const auto& v) {
    using T = std::decay_t<decltype(v)>;
    if constexpr (std::is_same_v<T, GgufArray>)
      append_array(out, v);
    else if constexpr (std::is_same_v<T, std::string_view>)
      append_text(out, v);
    else
      append(out, v);
  };
  std::visit(visitor, value);
}

template <typename T>
GgufArray packed(GgufType type, std::span<const T> values) {
  return {type, values.size(), std::as_bytes(values), {}};
}

std::size_t round_up(std::size_t n, std::size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

}  // namespace

struct GgufWriter::Part {
  std::unique_ptr<AtomicFile> file;
  std::size_t data_begin = 0, data_size = 0;  // in the file; padded bytes of its tensors
};

GgufWriter::GgufWriter(const std::filesystem::path& path, std::size_t alignment, std::uint64_t split_bytes)
    : path_(path), origin_(path.string()), alignment_(alignment), split_bytes_(split_bytes) {
  if (!std::has_single_bit(alignment) || alignment < 8) throw LogicError("{}: alignment {}", origin_, alignment);
  clear_pairs();
  parts_.resize(1);
  if (split_bytes_ == 0) parts_[0].file = std::make_unique<AtomicFile>(path_);  // fails before any work is done
}

GgufWriter::~GgufWriter() = default;

void GgufWriter::clear_pairs() {
  pairs_ = {};
  keys_.clear();
  pair_count_ = 0;
  if (alignment_ != kDefaultAlignment) add_pair(kAlignmentKey, static_cast<std::uint32_t>(alignment_));
}

void GgufWriter::add_pair(std::string_view key, const GgufValue& value) {
  if (streaming_) throw LogicError("{}: key \"{}\" added after the first tensor's bytes", origin_, key);
  if (key.empty() || !keys_.emplace(key).second) throw LogicError("{}: key \"{}\" added twice, or empty", origin_, key);
  append_text(pairs_, key);
  append_value(pairs_, value);
  ++pair_count_;
}

void GgufWriter::add_value(std::string_view key, const GgufValue& value) {
  if (key != kAlignmentKey) add_pair(key, value);
}

void GgufWriter::add_string_array(std::string_view key, std::span<const std::string> values) {
  add_value(key, GgufArray{GgufType::String, values.size(), {}, {values.begin(), values.end()}});
}

void GgufWriter::add_i32_array(std::string_view key, std::span<const std::int32_t> values) {
  add_value(key, packed(GgufType::I32, values));
}

void GgufWriter::add_u32_array(std::string_view key, std::span<const std::uint32_t> values) {
  add_value(key, packed(GgufType::U32, values));
}

void GgufWriter::add_f32_array(std::string_view key, std::span<const float> values) {
  add_value(key, packed(GgufType::F32, values));
}

void GgufWriter::add_bool_array(std::string_view key, std::span<const bool> values) {
  add_value(key, packed(GgufType::Bool, values));
}

void GgufWriter::declare_tensor(std::string_view name, GgmlType type, const Shape& shape) {
  if (streaming_) throw LogicError("{}: tensor \"{}\" declared after the first bytes", origin_, name);
  if (name.empty() || name.size() > kMaxNameBytes) {
    throw LogicError("{}: tensor name \"{}\": expected 1 to {} bytes", origin_, name, kMaxNameBytes);
  }
  if (!names_.emplace(name).second) throw LogicError("{}: tensor \"{}\" declared twice", origin_, name);
  if (shape.rank() < 1 || shape.rank() > kMaxRank) {
    throw LogicError("{}: tensor \"{}\": expected 1 to {} dimensions, found {}", origin_, name, kMaxRank, shape.str());
  }
  const std::int64_t cols = shape[shape.rank() - 1];
  const std::int64_t rows = cols == 0 ? 0 : shape.numel() / cols;
  tensors_.push_back({std::string(name), type, shape, static_cast<std::size_t>(rows) * ggml_row_bytes(type, cols)});
}

void GgufWriter::place_tensors() {
  std::vector<std::size_t> padded;
  for (const Entry& tensor : tensors_) padded.push_back(round_up(tensor.bytes, alignment_));
  if (split_bytes_ > 0) {
    const std::vector<std::size_t> assigned = assign_splits(padded, split_bytes_);
    parts_.resize(assigned.empty() ? 1 : assigned.back() + 1);
    if (parts_.size() > kMaxSplits)
      throw BadRecipe("{}: {} parts of {} bytes; at most {} are possible", origin_, parts_.size(), split_bytes_, kMaxSplits);
    for (std::size_t i = 0; i < tensors_.size(); ++i) tensors_[i].part = assigned[i];
  }
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    Part& part = parts_[tensors_[i].part];
    tensors_[i].offset = part.data_size;
    part.data_size += padded[i];
  }
}

void GgufWriter::begin_data() {
  if (streaming_) return;
  place_tensors();
  const std::size_t count = parts_.size();
  for (std::size_t i = 0; i < count; ++i)
    paths_.push_back(count == 1 ? path_ : split_path(split_prefix(path_), i + 1, count));
  for (std::size_t i = 0; i < count; ++i) {
    if (count > 1) {
      add_pair(kSplitNoKey, static_cast<std::uint16_t>(i));
      add_pair(kSplitCountKey, static_cast<std::uint16_t>(count));
      add_pair(kSplitTensorsKey, static_cast<std::int32_t>(tensors_.size()));
    }
    write_head(i);
    clear_pairs();  // the model's own stand in the first part only
  }
  streaming_ = true;
}

void GgufWriter::write_head(std::size_t index) {
  Part& part = parts_[index];
  if (!part.file) part.file = std::make_unique<AtomicFile>(paths_[index]);
  std::string head = "GGUF", infos;
  std::uint64_t count = 0;
  for (const Entry& tensor : tensors_) {
    if (tensor.part != index) continue;
    ++count;
    append_text(infos, tensor.name);
    append(infos, static_cast<std::uint32_t>(tensor.shape.rank()));
    for (std::size_t i = tensor.shape.rank(); i-- > 0;) append(infos, tensor.shape[i]);
    append(infos, tensor.type);
    append(infos, std::uint64_t{tensor.offset});
  }
  append(head, kVersion);
  append(head, count);
  append(head, pair_count_);
  head += pairs_ + infos;
  head.resize(round_up(head.size(), alignment_), '\0');
  part.file->write(head);
  part.data_begin = head.size();
  part.file->extend(part.data_size);  // padding between tensors stays as it is here: zero
}

void GgufWriter::write_at(std::size_t tensor, std::size_t offset, std::span<const std::byte> bytes) {
  if (!streaming_) throw LogicError("{}: bytes of a tensor before begin_data", origin_);
  Entry& entry = tensors_.at(tensor);
  if (offset > entry.bytes || bytes.size() > entry.bytes - offset)
    throw LogicError("{}: tensor \"{}\": {} bytes at {} of {}", origin_, entry.name, bytes.size(), offset, entry.bytes);
  const Part& part = parts_[entry.part];
  part.file->write_at(part.data_begin + entry.offset + offset, bytes);
  std::atomic_ref(entry.written).fetch_add(bytes.size());
}

void GgufWriter::write(std::span<const std::byte> bytes) {
  begin_data();
  while (!bytes.empty()) {
    while (current_ < tensors_.size() && tensors_[current_].written == tensors_[current_].bytes) ++current_;
    if (current_ == tensors_.size()) throw LogicError("{}: {} bytes more than declared", origin_, bytes.size());
    const Entry& entry = tensors_[current_];
    const std::size_t n = std::min(bytes.size(), entry.bytes - entry.written);
    write_at(current_, entry.written, bytes.first(n));
    bytes = bytes.subspan(n);
  }
}

void GgufWriter::commit() {
  begin_data();
  for (const Entry& entry : tensors_) {
    if (entry.written != entry.bytes) {
      throw LogicError("{}: tensor \"{}\": {} of {} bytes were written", origin_, entry.name, entry.written, entry.bytes);
    }
  }
  for (std::size_t i = parts_.size(); i-- > 0;) parts_[i].file->commit();
}

}  // namespace temper::files
