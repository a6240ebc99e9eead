// Writing GGUF.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>

#include "base/error.h"
#include "files/gguf.h"

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

GgufWriter::GgufWriter(const std::filesystem::path& path, std::size_t alignment)
    : origin_(path.string()), file_(path), alignment_(alignment) {
  if (!std::has_single_bit(alignment) || alignment < 8) throw LogicError("{}: alignment {}", origin_, alignment);
  if (alignment != kDefaultAlignment) add_pair(kAlignmentKey, static_cast<std::uint32_t>(alignment));
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
  const std::size_t bytes = static_cast<std::size_t>(rows) * ggml_row_bytes(type, cols);
  tensors_.push_back({std::string(name), type, shape, bytes, data_size_, 0});
  data_size_ += round_up(bytes, alignment_);
}

void GgufWriter::begin_data() {
  if (streaming_) return;
  streaming_ = true;
  std::string head = "GGUF";
  append(head, kVersion);
  append(head, std::uint64_t{tensors_.size()});
  append(head, pair_count_);
  head += pairs_;
  pairs_ = {};
  for (const Entry& tensor : tensors_) {
    append_text(head, tensor.name);
    append(head, static_cast<std::uint32_t>(tensor.shape.rank()));
    for (std::size_t i = tensor.shape.rank(); i-- > 0;) append(head, tensor.shape[i]);
    append(head, tensor.type);
    append(head, std::uint64_t{tensor.offset});
  }
  head.resize(round_up(head.size(), alignment_), '\0');
  file_.write(head);
  data_begin_ = head.size();
  file_.extend(data_size_);  // padding between tensors stays as it is here: zero
}

void GgufWriter::write_at(std::size_t tensor, std::size_t offset, std::span<const std::byte> bytes) {
  if (!streaming_) throw LogicError("{}: bytes of a tensor before begin_data", origin_);
  Entry& entry = tensors_.at(tensor);
  if (offset > entry.bytes || bytes.size() > entry.bytes - offset)
    throw LogicError("{}: tensor \"{}\": {} bytes at {} of {}", origin_, entry.name, bytes.size(), offset, entry.bytes);
  file_.write_at(data_begin_ + entry.offset + offset, bytes);
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
  file_.commit();
}

}  // namespace temper::files
