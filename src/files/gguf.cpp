// Reading GGUF.
#include "files/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <type_traits>

#include "base/error.h"

namespace temper::files {
namespace {

static_assert(std::endian::native == std::endian::little, "the formats read here are little endian, and so is this code");

constexpr std::size_t kMaxKeyBytes = 65535;        // the specification's limit
constexpr std::uint32_t kMaxRank = 4;              // ggml's
constexpr std::uint64_t kMaxAlignment = 1u << 20;  // far above any page or vector; keeps sums of offsets small
// The fewest bytes that a key/value (length, key, type, value) and a tensor (length, name, rank, type, offset) take.
constexpr std::size_t kMinPairBytes = 8 + 4 + 1, kMinTensorBytes = 8 + 4 + 4 + 8;

constexpr std::array<std::string_view, 13> kTypeNames = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                         "bool", "string", "array", "u64", "i64", "f64"};
/// Bytes of a value; 0 for those of variable length.
constexpr std::array<std::size_t, 13> kTypeBytes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

std::size_t type_bytes(GgufType type) { return kTypeBytes[static_cast<std::size_t>(type)]; }

template <typename T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// Calls `body` with a value of the C++ type behind a numeric GGUF type (bool as its byte).
template <typename Body>
decltype(auto) with_number_type(GgufType type, Body&& body) {
  switch (type) {
    case GgufType::I8: return body(std::int8_t{});
    case GgufType::U16: return body(std::uint16_t{});
    case GgufType::I16: return body(std::int16_t{});
    case GgufType::U32: return body(std::uint32_t{});
    case GgufType::I32: return body(std::int32_t{});
    case GgufType::F32: return body(float{});
    case GgufType::U64: return body(std::uint64_t{});
    case GgufType::I64: return body(std::int64_t{});
    case GgufType::F64: return body(double{});
    default: return body(std::uint8_t{});
  }
}

}  // namespace

std::string_view gguf_type_name(GgufType type) { return kTypeNames.at(static_cast<std::size_t>(type)); }

/// Walks the file once. Every read goes through `take`, which knows what is left.
class GgufParser {
 public:
  GgufParser(GgufFile& file, std::span<const std::byte> bytes) : file_(file), bytes_(bytes) {}

  void run() {
    const auto [tensor_count, pair_count] = read_counts();
    for (std::uint64_t i = 0; i < pair_count; ++i) read_pair();
    read_alignment();
    for (std::uint64_t i = 0; i < tensor_count; ++i) read_tensor();
    place_tensors();
    check_overlaps();
  }

 private:
  template <typename... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw BadFile("{}: {}", file_.origin_, fmt::format(format, std::forward<Args>(args)...));
  }

  std::size_t left() const { return bytes_.size() - position_; }

  std::span<const std::byte> take(std::uint64_t n, std::string_view what) {
    if (n > left()) fail("{} of {} bytes at offset {}, but {} are left; is the file truncated?", what, n, position_, left());
    const auto taken = bytes_.subspan(position_, n);
    position_ += n;
    return taken;
  }

  template <typename T>
  T number(std::string_view what) {
    return load<T>(take(sizeof(T), what).data());
  }

  std::string_view text(std::string_view what) {
    const auto bytes = take(number<std::uint64_t>(what), what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  GgufType value_type(std::string_view key) {
    const auto id = number<std::uint32_t>("value type");
    if (id >= kTypeNames.size()) fail("key \"{}\": expected a value type below {}, found {}", key, kTypeNames.size(), id);
    return static_cast<GgufType>(id);
  }

  std::pair<std::uint64_t, std::uint64_t> read_counts() {
    const auto magic = take(4, "magic");
    if (std::memcmp(magic.data(), "GGUF", 4) != 0) fail("it does not begin with \"GGUF\"");
    file_.version_ = number<std::uint32_t>("version");
    if (file_.version_ != 0 && (file_.version_ & 0xffffu) == 0) throw Unsupported("{}: big-endian GGUF", file_.origin_);
    if (file_.version_ == 1) throw Unsupported("{}: GGUF version 1; convert it to version 3", file_.origin_);
    if (file_.version_ != 2 && file_.version_ != 3) fail("expected GGUF version 2 or 3, found {}", file_.version_);
    const auto tensors = number<std::uint64_t>("tensor count"), pairs = number<std::uint64_t>("key count");
    if (pairs > left() / kMinPairBytes) fail("{} keys cannot fit in {} bytes", pairs, bytes_.size());
    if (tensors > left() / kMinTensorBytes) fail("{} tensors cannot fit in {} bytes", tensors, bytes_.size());
    return {tensors, pairs};
  }

  void read_pair() {
    const std::string_view key = text("key");
    if (key.empty() || key.size() > kMaxKeyBytes) fail("a key of {} bytes", key.size());
    if (!file_.value_index_.emplace(key, file_.values_.size()).second) fail("key \"{}\" appears twice", key);
    const GgufType type = value_type(key);
    file_.values_.push_back({key, read_value(type, key)});
  }

  GgufValue read_value(GgufType type, std::string_view key) {
    switch (type) {
      case GgufType::String: return text(key);
      case GgufType::Array: return read_array(key);
      case GgufType::Bool: return read_bools(take(1, key), key)[0] != std::byte{0};
      default: return with_number_type(type, [&](auto zero) -> GgufValue { return number<decltype(zero)>(key); });
    }
  }

  GgufArray read_array(std::string_view key) {
    GgufArray array;
    array.type = value_type(key);
    array.count = number<std::uint64_t>(key);
    if (array.type == GgufType::Array) throw Unsupported("{}: key \"{}\": an array of arrays", file_.origin_, key);
    const std::size_t smallest = array.type == GgufType::String ? 8 : type_bytes(array.type);
    if (array.count > left() / smallest) {
      fail("key \"{}\": an array of {} {} cannot fit in the {} bytes left", key, array.count, gguf_type_name(array.type),
           left());
    }
    if (array.type == GgufType::String) {
      array.strings.reserve(array.count);
      for (std::uint64_t i = 0; i < array.count; ++i) array.strings.push_back(text(key));
    } else {
      array.bytes = take(array.count * smallest, key);
    }
    if (array.type == GgufType::Bool) read_bools(array.bytes, key);
    return array;
  }

  std::span<const std::byte> read_bools(std::span<const std::byte> bytes, std::string_view key) const {
    for (const std::byte b : bytes)
      if (b > std::byte{1}) fail("key \"{}\": expected a bool of 0 or 1, found {}", key, std::to_integer<int>(b));
    return bytes;
  }

  void read_alignment() {
    const auto alignment = file_.optional_u64("general.alignment");
    if (!alignment) return;
    if (!std::has_single_bit(*alignment) || *alignment > kMaxAlignment) {
      fail("key \"general.alignment\": expected a power of two up to {}, found {}", kMaxAlignment, *alignment);
    }
    file_.alignment_ = *alignment;
  }

  void read_tensor() {
    const std::string_view name = text("tensor name");
    if (!file_.tensor_index_.emplace(name, file_.tensors_.size()).second) fail("tensor \"{}\" appears twice", name);
    const auto rank = number<std::uint32_t>("rank");
    if (rank > kMaxRank) fail("tensor \"{}\": expected at most {} dimensions, found {}", name, kMaxRank, rank);
    std::vector<std::int64_t> dims(rank);
    for (std::uint32_t i = 0; i < rank; ++i) dims[rank - 1 - i] = number<std::int64_t>("extent");
    const auto id = number<std::uint32_t>("tensor type");
    const GgmlTypeInfo* info = find_ggml_type(id);
    if (!info) fail("tensor \"{}\": unknown ggml type {}", name, id);
    const auto elements = checked_product(dims);
    if (elements < 0) fail("tensor \"{}\": extents [{}] are negative or overflow", name, fmt::join(dims, ", "));
    const std::int64_t cols = rank == 0 ? 1 : dims.back();
    if (cols % info->block_elements != 0) {
      fail("tensor \"{}\": rows of {} are no whole number of {} blocks of {}", name, cols, info->name, info->block_elements);
    }
    // Before blocks become bytes: then the product cannot overflow.
    const auto blocks = static_cast<std::uint64_t>(elements / info->block_elements);
    if (blocks > bytes_.size() / info->block_bytes) {
      fail("tensor \"{}\": {} {} cannot fit in a file of {} bytes", name, info->name, Shape(dims).str(), bytes_.size());
    }
    sizes_.push_back(blocks * info->block_bytes);
    offsets_.push_back(number<std::uint64_t>("tensor offset"));
    file_.tensors_.push_back({name, info->type, Shape(std::move(dims)), {}});
  }

  /// Data begin at the next multiple of the alignment; a file without tensors may end before.
  void place_tensors() {
    const std::size_t begin = (position_ + file_.alignment_ - 1) / file_.alignment_ * file_.alignment_;
    const auto data = begin <= bytes_.size() ? bytes_.subspan(begin) : std::span<const std::byte>{};
    for (std::size_t i = 0; i < offsets_.size(); ++i) {
      GgufTensor& tensor = file_.tensors_[i];
      const std::uint64_t offset = offsets_[i], size = sizes_[i];
      if (offset % file_.alignment_ != 0) {
        fail("tensor \"{}\": expected an offset that is a multiple of {}, found {}", tensor.name, file_.alignment_, offset);
      }
      if (offset > data.size() || size > data.size() - offset) {
        fail("tensor \"{}\": {} bytes at offset {} do not lie within the {} bytes of data; is the file truncated?",
             tensor.name, size, offset, data.size());
      }
      tensor.data = data.subspan(offset, size);
    }
  }

  void check_overlaps() const {
    std::vector<const GgufTensor*> order;
    for (const GgufTensor& tensor : file_.tensors_)
      if (!tensor.data.empty()) order.push_back(&tensor);
    std::ranges::sort(order, {}, [](const GgufTensor* t) { return t->data.data(); });
    for (std::size_t i = 1; i < order.size(); ++i) {
      if (order[i - 1]->data.data() + order[i - 1]->data.size() > order[i]->data.data()) {
        fail("the data of tensors \"{}\" and \"{}\" overlap", order[i - 1]->name, order[i]->name);
      }
    }
  }

  GgufFile& file_;
  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  std::vector<std::uint64_t> offsets_, sizes_;  // of the tensors, in file order
};

GgufFile GgufFile::open_part(const std::filesystem::path& path) {
  MappedFile mapped(path);
  GgufFile file = parse(mapped.bytes(), path.string());
  file.files_.push_back(std::move(mapped));
  return file;
}

GgufFile GgufFile::parse(std::span<const std::byte> bytes, std::string origin) {
  GgufFile file;
  file.origin_ = std::move(origin);
  file.file_bytes_ = bytes.size();
  GgufParser(file, bytes).run();
  return file;
}

void GgufFile::release(std::span<const std::byte> bytes) const {
  for (const MappedFile& file : files_) file.release(bytes);
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufTensor& GgufFile::at(std::string_view name) const {
  if (const GgufTensor* tensor = find(name)) return *tensor;
  throw BadFile("{}: tensor \"{}\" is missing ({} others are there)", origin_, name, tensors_.size());
}

const GgufValue* GgufFile::find_value(std::string_view key) const {
  const auto found = value_index_.find(key);
  return found == value_index_.end() ? nullptr : &values_[found->second].value;
}

}  // namespace temper::files
