#include "files/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/error.h"
#include "files/json.h"

namespace temper::files {
namespace {

static_assert(std::endian::native == std::endian::little, "the formats read here are little endian, and so is this code");

constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's own library
constexpr JsonLimits kHeaderLimits{.max_bytes = kMaxHeaderBytes, .max_depth = 4};

/// Dtypes of the format that temper does not know what to do with: to be told from misspelt ones.
constexpr std::string_view kForeignDtypes[] = {"F4",  "F6_E2M3", "F6_E3M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
                                               "U16", "U32",     "U64",     "C64"};

DType parse_dtype(const Json& entry, const std::string& where) {
  const std::string& name = require_string(entry, "dtype", where);
  if (const auto dtype = dtype_from_name(name)) return *dtype;
  if (std::ranges::find(kForeignDtypes, name) != std::end(kForeignDtypes)) {
    throw Unsupported("{}: dtype {}; give the model in F32, F16 or BF16", where, name);
  }
  throw BadFile("{}: expected a dtype of the format, found {}", where, describe(entry.at("dtype")));
}

Shape parse_shape(const Json& entry, const std::string& where) {
  std::vector<std::int64_t> dims;
  for (const Json& extent : require_array(entry, "shape", where)) {
    if (!extent.is_number_unsigned() || extent.get<std::uint64_t>() > static_cast<std::uint64_t>(kMaxInt)) {
      throw BadFile("{}: key \"shape\": expected extents of 0 or more, found {}", where, describe(extent));
    }
    dims.push_back(extent.get<std::int64_t>());
  }
  if (checked_product(dims) < 0) throw BadFile("{}: key \"shape\": the product of the extents overflows", where);
  return Shape(std::move(dims));
}

/// The bytes that `data_offsets` gives a tensor, which must be as many as its shape and dtype need.
std::span<const std::byte> parse_range(const Json& entry, const std::string& where, const SafetensorsTensor& tensor,
                                       std::span<const std::byte> data) {
  const Json& offsets = require_array(entry, "data_offsets", where);
  if (offsets.size() != 2 || !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned()) {
    throw BadFile("{}: key \"data_offsets\": expected two offsets, found {}", where, offsets.dump());
  }
  const auto begin = offsets[0].get<std::uint64_t>(), end = offsets[1].get<std::uint64_t>();
  if (begin > end || end > data.size()) {
    throw BadFile("{}: data_offsets [{}, {}] do not lie within the {} bytes of data; is the file truncated?", where, begin,
                  end, data.size());
  }
  const auto elements = static_cast<std::uint64_t>(tensor.shape.numel()), size = dtype_size(tensor.dtype);
  if ((end - begin) % size != 0 || (end - begin) / size != elements) {
    throw BadFile("{}: expected {} elements of {} ({}), found {} bytes", where, elements, dtype_name(tensor.dtype),
                  tensor.shape.str(), end - begin);
  }
  return data.subspan(begin, end - begin);
}

SafetensorsMetadata parse_metadata(const Json& members, const std::string& origin) {
  if (!members.is_object()) throw BadFile("{}: __metadata__: expected an object, found {}", origin, describe(members));
  SafetensorsMetadata metadata;
  for (const auto& [key, value] : members.items()) {
    if (!value.is_string())
      throw BadFile("{}: __metadata__: key \"{}\": expected a string, found {}", origin, key, describe(value));
    metadata.emplace(key, value.get_ref<const std::string&>());
  }
  return metadata;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : origin_(path.string()), file_(path) {
  read_header(file_->bytes());
}

SafetensorsFile SafetensorsFile::parse(std::span<const std::byte> bytes, std::string origin) {
  SafetensorsFile file;
  file.origin_ = std::move(origin);
  file.read_header(bytes);
  return file;
}

void SafetensorsFile::read_header(std::span<const std::byte> bytes) {
  if (bytes.size() < kLengthBytes) {
    throw BadFile("{}: {} bytes, too short for a safetensors file; is it truncated?", origin_, bytes.size());
  }
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), kLengthBytes);
  if (length > kMaxHeaderBytes || length > bytes.size() - kLengthBytes) {
    throw BadFile("{}: header of {} bytes in a file of {}; it is no safetensors file, or truncated", origin_, length,
                  bytes.size());
  }
  const auto header = bytes.subspan(kLengthBytes, length);
  read_tensors({reinterpret_cast<const char*>(header.data()), header.size()}, bytes.subspan(kLengthBytes + length));
}

void SafetensorsFile::read_tensors(std::string_view header, std::span<const std::byte> data) {
  const Json json = parse_json(header, origin_ + ": header", kHeaderLimits);
  if (!json.is_object()) throw BadFile("{}: header: expected an object, found {}", origin_, describe(json));
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") {
      metadata_ = parse_metadata(entry, origin_);
      continue;
    }
    const std::string where = fmt::format("{}: tensor \"{}\"", origin_, name);
    SafetensorsTensor tensor{name, parse_dtype(entry, where), parse_shape(entry, where), {}};
    tensor.data = parse_range(entry, where, tensor, data);
    tensors_.push_back(std::move(tensor));
  }
  // By offset, and an empty tensor before the one that starts where it stands.
  std::ranges::stable_sort(tensors_, {}, [](const SafetensorsTensor& t) { return std::pair(t.data.data(), t.data.size()); });
  check_coverage(data);
  for (std::size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
}

void SafetensorsFile::check_coverage(std::span<const std::byte> data) const {
  const std::byte* expected = data.data();
  for (const SafetensorsTensor& tensor : tensors_) {
    if (tensor.data.data() != expected) {
      throw BadFile("{}: tensor \"{}\": expected its data at offset {}, where the one before ends, found {}", origin_,
                    tensor.name, expected - data.data(), tensor.data.data() - data.data());
    }
    expected += tensor.data.size();
  }
  if (expected != data.data() + data.size()) {
    throw BadFile("{}: the tensors end at offset {} of {} bytes of data", origin_, expected - data.data(), data.size());
  }
}

const SafetensorsTensor* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const SafetensorsTensor& SafetensorsFile::at(std::string_view name) const {
  if (const SafetensorsTensor* tensor = find(name)) return *tensor;
  throw BadFile("{}: tensor \"{}\" is missing ({} others are there)", origin_, name, tensors_.size());
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, const std::vector<SafetensorsEntry>& entries,
                                     const SafetensorsMetadata& metadata)
    : origin_(path.string()), file_(path) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::unordered_set<std::string_view> names;
  for (const SafetensorsEntry& entry : entries) {
    if (!names.insert(entry.name).second || entry.name == "__metadata__") {
      throw LogicError("{}: tensor \"{}\" declared twice, or reserved", origin_, entry.name);
    }
    const std::size_t end = remaining_ + entry.bytes();
    header.push_back(
        {entry.name,
         {{"dtype", dtype_name(entry.dtype)}, {"shape", entry.shape.dims()}, {"data_offsets", {remaining_, end}}}});
    remaining_ = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // data starts at a multiple of 8, as mapping readers like it
  const std::uint64_t length = text.size();
  if (length > kMaxHeaderBytes)
    throw LogicError("{}: header of {} bytes, more than the format's {}", origin_, length, kMaxHeaderBytes);
  file_.write(std::as_bytes(std::span(&length, 1)));
  file_.write(text);
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  if (bytes.size() > remaining_) throw LogicError("{}: {} bytes more than declared", origin_, bytes.size() - remaining_);
  file_.write(bytes);
  remaining_ -= bytes.size();
}

void SafetensorsWriter::commit() {
  if (remaining_ != 0) throw LogicError("{}: {} declared bytes were not written", origin_, remaining_);
  file_.commit();
}

}  // namespace temper::files
