#include "train/checkpoint.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "base/error.h"
#include "base/log.h"
#include "files/safetensors.h"

namespace temper::train {
namespace {

namespace fs = std::filesystem;
using files::Json;

constexpr std::string_view kFormat = "temper-checkpoint";
constexpr std::int64_t kVersion = 3;
constexpr const char* kManifest = "manifest.json";
constexpr const char* kTensors = "state.safetensors";
constexpr const char* kState = "state.json";
constexpr const char* kRecipe = "recipe.yaml";
constexpr std::array<const char*, 3> kFiles = {kTensors, kState, kRecipe};
constexpr std::string_view kCodes = "codes.";

// Folders under these names are never read: what a killed write or removal leaves behind.
constexpr std::string_view kPartial = "partial-step-", kRemoved = "removed-step-", kStep = "step-";

std::optional<std::int64_t> step_of(const std::string& name) {
  if (!name.starts_with(kStep)) return std::nullopt;
  std::int64_t step = -1;
  const char *begin = name.data() + kStep.size(), *end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(begin, end, step);
  if (error != std::errc{} || stop != end || step < 0 || name != fmt::format("{}{}", kStep, step)) return std::nullopt;
  return step;
}

void flush_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) throw IoError("{}: cannot open the folder ({})", folder.string(), std::strerror(errno));
  const bool failed = ::fsync(fd) != 0;
  const int error = errno;
  ::close(fd);
  if (failed) throw IoError("{}: cannot flush the folder ({})", folder.string(), std::strerror(error));
}

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw IoError("{}: cannot create the folder ({})", folder.string(), error.message());
}

void rename_folder(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) throw IoError("{}: cannot rename it to {} ({})", from.string(), to.filename().string(), error.message());
}

void write_tensors(const CheckpointState& state, const fs::path& path) {
  std::vector<files::SafetensorsEntry> entries;
  for (const auto& [name, tensor] : state.tensors) {
    if (name.starts_with(kCodes) || !tensor.contiguous())
      throw LogicError("checkpoint: {} {} {}: no tensor of a run's state", name, dtype_name(tensor.dtype),
                       tensor.shape.str());
    entries.push_back({name, tensor.dtype, tensor.shape});
  }
  for (const KeptCodes& codes : state.codes) {
    const auto bytes = static_cast<std::int64_t>(codes.bytes.size());
    if (codes.rows < 1 || bytes % codes.rows != 0) throw LogicError("checkpoint: {} bytes of {}", bytes, codes.name);
    entries.push_back({fmt::format("{}{}", kCodes, codes.name), DType::U8, {codes.rows, bytes / codes.rows}});
  }
  files::SafetensorsWriter writer(path, entries);
  for (const auto& [name, tensor] : state.tensors)
    writer.write({static_cast<const std::byte*>(tensor.data), tensor.bytes()});
  for (const KeptCodes& codes : state.codes) writer.write(codes.bytes);
  writer.commit();
}

Json state_json(const CheckpointState& state) {
  return {{"step", state.step},
          {"epoch", state.cursor.epoch},
          {"index", state.cursor.index},
          {"tokens", state.tokens},
          {"seconds", state.seconds},
          {"last_loss", state.last_loss},
          {"changed", state.shares.changed},
          {"saturated", state.shares.saturated},
          {"codes_checksum", state.codes_checksum},
          {"base_fingerprint", state.base_fingerprint},
          {"data_fingerprint", state.data_fingerprint},
          {"compute", state.compute},
          {"isa", state.isa},
          {"metrics", state.metrics}};
}

/// The manifest seals itself: `checksum` is that of the text without it.
std::string sealed(Json manifest) {
  manifest.erase("checksum");
  manifest["checksum"] = checksum_of(manifest.dump(2));
  return manifest.dump(2) + "\n";
}

void write_manifest(const CheckpointState& state, const fs::path& folder) {
  Json list = Json::object();
  for (const char* name : kFiles) {
    std::size_t bytes = 0;
    const std::string checksum = checksum_of_file(folder / name, &bytes);
    list[name] = {{"bytes", bytes}, {"xxh3_64", checksum}};
  }
  write_file(folder / kManifest,
             sealed({{"format", kFormat}, {"version", kVersion}, {"step", state.step}, {"files", list}}));
}

void check_files(const fs::path& folder) {
  const fs::path path = folder / kManifest;
  const std::string origin = path.string(), text = read_file(path, 1 << 16);
  const Json manifest = files::parse_json(text, origin);
  if (!manifest.is_object() || sealed(manifest) != text)
    throw BadFile("{}: its checksum does not fit its text: the checkpoint is damaged", origin);
  if (files::require_string(manifest, "format", origin) != kFormat ||
      files::require_int(manifest, "version", origin) != kVersion)
    throw BadFile("{}: expected {} version {}; written by another version of temper?", origin, kFormat, kVersion);
  const Json& list = files::require_object(manifest, "files", origin);
  for (const char* name : kFiles) {
    const Json& entry = files::require_object(list, name, origin);
    const std::string file = (folder / name).string();
    std::size_t bytes = 0;
    const std::string checksum = checksum_of_file(file, &bytes);
    if (const auto expected = static_cast<std::size_t>(files::require_int(entry, "bytes", origin, 0)); bytes != expected)
      throw BadFile("{}: expected {} bytes, found {}: the checkpoint is damaged", file, expected, bytes);
    if (const std::string& expected = files::require_string(entry, "xxh3_64", origin); checksum != expected)
      throw BadFile("{}: expected checksum {}, found {}: the checkpoint is damaged", file, expected, checksum);
  }
}

void read_state(const fs::path& path, CheckpointState& state) {
  const std::string origin = path.string();
  const Json json = files::read_json(path);
  state.step = files::require_int(json, "step", origin, 0);
  state.cursor = {files::require_int(json, "epoch", origin, 0), files::require_int(json, "index", origin, 0)};
  state.tokens = files::require_int(json, "tokens", origin, 0);
  state.seconds = files::require_number(json, "seconds", origin, 0);
  state.last_loss = files::require_number(json, "last_loss", origin);
  state.shares = {files::require_number(json, "changed", origin), files::require_number(json, "saturated", origin)};
  state.codes_checksum = files::require_string(json, "codes_checksum", origin);
  state.base_fingerprint = files::require_string(json, "base_fingerprint", origin);
  state.data_fingerprint = files::require_string(json, "data_fingerprint", origin);
  state.compute = files::require_string(json, "compute", origin);
  state.isa = files::require_string(json, "isa", origin);
  state.metrics = files::require_object(json, "metrics", origin);
}

void read_tensors(const fs::path& path, LoadedCheckpoint& loaded) {
  const files::SafetensorsFile file(path);
  for (const files::SafetensorsTensor& tensor : file.tensors()) {
    const bool codes = tensor.name.starts_with(kCodes);
    if (codes && (tensor.dtype != DType::U8 || tensor.shape.rank() != 2))
      throw BadFile("{}: {}: expected U8 [rows, bytes], found {} {}", path.string(), tensor.name, dtype_name(tensor.dtype),
                    tensor.shape.str());
    Tensor& copy = loaded.storage.emplace_back(tensor.dtype, tensor.shape);
    if (!tensor.data.empty()) std::memcpy(copy.view().data, tensor.data.data(), tensor.data.size());
    if (codes)
      loaded.state.codes.push_back(
          {tensor.name.substr(kCodes.size()), tensor.shape[0], std::as_bytes(copy.view().span<std::uint8_t>())});
    else
      loaded.state.tensors.push_back({tensor.name, copy.view()});
  }
}

}  // namespace

CheckpointStore::CheckpointStore(fs::path folder, std::int64_t keep) : folder_(std::move(folder)), keep_(keep) {
  if (keep < 1) throw LogicError("a store that keeps {} checkpoints", keep);
}

fs::path CheckpointStore::path_of(std::int64_t step) const { return folder_ / fmt::format("{}{}", kStep, step); }

std::vector<std::int64_t> CheckpointStore::steps() const {
  std::vector<std::int64_t> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error))
    if (const auto step = step_of(entry.path().filename().string())) found.push_back(*step);
  std::ranges::sort(found);
  return found;
}

void CheckpointStore::save(const CheckpointState& state) const {
  make_folder(folder_);
  const fs::path aside = folder_ / fmt::format("{}{}", kPartial, state.step), final_path = path_of(state.step);
  fs::remove_all(aside);
  make_folder(aside);
  try {
    write_tensors(state, aside / kTensors);
    write_file(aside / kState, state_json(state).dump(2) + "\n");
    write_file(aside / kRecipe, state.recipe_yaml);
    write_manifest(state, aside);
    flush_folder(aside);
    if (fs::exists(final_path)) {
      const fs::path old = folder_ / fmt::format("{}{}", kRemoved, state.step);
      fs::remove_all(old);
      rename_folder(final_path, old);
    }
    rename_folder(aside, final_path);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(aside, ignored);
    throw;
  }
  flush_folder(folder_);
  prune(state.step);
}

void CheckpointStore::prune(std::int64_t newest) const {
  const std::vector<std::int64_t> all = steps();
  const auto past = std::ranges::upper_bound(all, newest) - all.begin();
  for (std::ptrdiff_t i = 0; i < std::ssize(all); ++i) {
    if (i < past && i >= past - keep_) continue;
    // Renamed first, so that a removal cut short leaves no half checkpoint under a checkpoint's name.
    const std::int64_t step = all[static_cast<std::size_t>(i)];
    rename_folder(path_of(step), folder_ / fmt::format("{}{}", kRemoved, step));
  }
  remove_leftovers();
}

void CheckpointStore::remove_leftovers() const {
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPartial) || name.starts_with(kRemoved)) leftovers.push_back(entry.path());
  }
  for (const fs::path& path : leftovers) {
    fs::remove_all(path, error);
    if (error) log_warning("{}: cannot remove what an interrupted write left ({})", path.string(), error.message());
  }
}

LoadedCheckpoint CheckpointStore::load(const fs::path& folder) {
  check_files(folder);
  LoadedCheckpoint loaded;
  loaded.folder = folder;
  read_state(folder / kState, loaded.state);
  read_tensors(folder / kTensors, loaded);
  loaded.state.recipe_yaml = read_file(folder / kRecipe, 1 << 20);
  if (const auto step = step_of(folder.filename().string()); step && *step != loaded.state.step)
    throw BadFile("{}: holds the state of step {}: the folder was renamed", folder.string(), loaded.state.step);
  return loaded;
}

std::optional<LoadedCheckpoint> CheckpointStore::load_newest() const {
  const std::vector<std::int64_t> all = steps();
  for (auto step = all.rbegin(); step != all.rend(); ++step) {
    try {
      return load(path_of(*step));
    } catch (const Error& error) {
      log_warning("{}{}", error.what(), step + 1 != all.rend() ? "; trying the checkpoint before it" : "");
    }
  }
  if (all.empty()) return std::nullopt;
  throw BadFile("{}: none of its {} checkpoints is whole; start the run anew in another folder", folder_.string(),
                all.size());
}

}  // namespace temper::train
