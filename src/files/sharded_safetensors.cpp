#include <algorithm>
#include <set>
#include <system_error>

#include "base/error.h"
#include "files/json.h"
#include "files/safetensors.h"

namespace temper::files {
namespace {

std::string single_name(std::string_view stem) { return fmt::format("{}.safetensors", stem); }
std::string index_name(std::string_view stem) { return fmt::format("{}.safetensors.index.json", stem); }

/// A shard's name comes from a file that may be hostile: it must name something in the folder itself.
void check_shard_name(const std::string& name, const std::string& origin) {
  const std::filesystem::path path(name);
  if (name.empty() || name == "." || name == ".." || path.filename() != path || name.find('\0') != std::string::npos) {
    throw BadFile("{}: weight_map: expected the name of a file in the same folder, found \"{}\"", origin, name);
  }
}

}  // namespace

ShardedSafetensors::ShardedSafetensors(const std::filesystem::path& folder, std::string_view stem) {
  const auto single = folder / single_name(stem), index = folder / index_name(stem);
  if (std::filesystem::exists(single)) {
    origin_ = single.string();
    shards_.emplace_back(single);
  } else if (std::filesystem::exists(index)) {
    origin_ = index.string();
    read_index(folder, index);
  } else {
    throw BadFile("{}: neither {} nor {} is there", folder.string(), single_name(stem), index_name(stem));
  }
  collect();
}

void ShardedSafetensors::read_index(const std::filesystem::path& folder, const std::filesystem::path& index_path) {
  const Json json = read_json(index_path);
  const Json& map = require_object(json, "weight_map", origin_);
  std::set<std::string> names;
  for (const auto& [tensor, shard] : map.items()) {
    const std::string& name = require_string(map, tensor, origin_ + ": weight_map");
    check_shard_name(name, origin_);
    names.insert(name);
  }
  std::unordered_map<std::string, std::size_t> shard_of;
  for (const std::string& name : names) {
    shard_of.emplace(name, shards_.size());
    shards_.emplace_back(folder / name);
  }
  for (const auto& [tensor, shard] : map.items()) {
    const std::string& name = shard.get_ref<const std::string&>();
    if (!shards_[shard_of.at(name)].find(tensor)) {
      throw BadFile("{}: tensor \"{}\" is missing from {}, where the index puts it", origin_, tensor, name);
    }
  }
}

void ShardedSafetensors::collect() {
  for (const SafetensorsFile& shard : shards_) {
    tensors_.insert(tensors_.end(), shard.tensors().begin(), shard.tensors().end());
    metadata_.insert(shard.metadata().begin(), shard.metadata().end());
  }
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (!index_.emplace(tensors_[i].name, i).second) {
      throw BadFile("{}: tensor \"{}\" stands in two shards", origin_, tensors_[i].name);
    }
  }
}

const SafetensorsTensor* ShardedSafetensors::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

void ShardedSafetensors::release(std::span<const std::byte> bytes) const {
  for (const SafetensorsFile& shard : shards_) shard.release(bytes);
}

const SafetensorsTensor& ShardedSafetensors::at(std::string_view name) const {
  if (const SafetensorsTensor* tensor = find(name)) return *tensor;
  throw BadFile("{}: tensor \"{}\" is missing ({} others are there)", origin_, name, tensors_.size());
}

ShardedSafetensorsWriter::ShardedSafetensorsWriter(const std::filesystem::path& folder,
                                                   const std::vector<SafetensorsEntry>& entries,
                                                   const SafetensorsMetadata& metadata, std::size_t max_shard_bytes,
                                                   std::string_view stem)
    : folder_(folder), stem_(stem) {
  std::vector<std::vector<SafetensorsEntry>> shards(1);
  shard_bytes_.assign(1, 0);
  std::set<std::string_view> seen;
  for (const SafetensorsEntry& entry : entries) {
    if (!seen.insert(entry.name).second) throw LogicError("{}: tensor \"{}\" declared twice", folder.string(), entry.name);
    if (!shards.back().empty() && entry.bytes() > max_shard_bytes - std::min(max_shard_bytes, shard_bytes_.back())) {
      shards.emplace_back();
      shard_bytes_.push_back(0);
    }
    shards.back().push_back(entry);
    shard_bytes_.back() += entry.bytes();
  }

  nlohmann::ordered_json index = {{"metadata", {{"total_size", 0}}}, {"weight_map", nlohmann::ordered_json::object()}};
  std::size_t total = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    names_.push_back(shards.size() == 1 ? single_name(stem)
                                        : fmt::format("{}-{:05}-of-{:05}.safetensors", stem, i + 1, shards.size()));
    for (const SafetensorsEntry& entry : shards[i]) index["weight_map"][entry.name] = names_.back();
    total += shard_bytes_[i];
    writers_.push_back(std::make_unique<SafetensorsWriter>(folder / names_.back(), shards[i], metadata));
  }
  index["metadata"]["total_size"] = total;
  if (shards.size() > 1) index_text_ = index.dump(2) + "\n";
}

void ShardedSafetensorsWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    while (current_ < writers_.size() && written_in_current_ == shard_bytes_[current_]) {
      ++current_;
      written_in_current_ = 0;
    }
    if (current_ == writers_.size()) throw LogicError("{}: {} bytes more than declared", folder_.string(), bytes.size());
    const std::size_t n = std::min(bytes.size(), shard_bytes_[current_] - written_in_current_);
    writers_[current_]->write(bytes.first(n));
    written_in_current_ += n;
    bytes = bytes.subspan(n);
  }
}

void ShardedSafetensorsWriter::commit() {
  for (std::size_t i = current_; i < writers_.size(); ++i) {
    if (shard_bytes_[i] != (i == current_ ? written_in_current_ : 0)) {
      throw LogicError("{}: declared bytes of {} were not written", folder_.string(), names_[i]);
    }
  }
  for (const auto& writer : writers_) writer->commit();
  // What an earlier save left must not win over this one.
  std::error_code ignored;
  if (index_text_.empty()) {
    std::filesystem::remove(folder_ / index_name(stem_), ignored);
  } else {
    write_file(folder_ / index_name(stem_), index_text_);
    std::filesystem::remove(folder_ / single_name(stem_), ignored);
  }
}

}  // namespace temper::files
