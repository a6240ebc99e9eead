#include "eval/run_info.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "files/json.h"

namespace temper::eval {
namespace {

constexpr const char* kFileName = "run.json";

}  // namespace

bool is_run(const std::filesystem::path& folder) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(folder / kFileName, ignored);
}

RunInfo read_run_info(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / kFileName;
  const std::string origin = path.string();
  const files::Json json = files::read_json(path);
  RunInfo info;
  info.base_model = files::require_string(json, "base_model", origin);
  info.base_format = files::optional_string(json, "base_format", origin).value_or(info.base_format);
  info.base_checksum = files::optional_string(json, "base_checksum", origin).value_or("");
  info.lora_init = files::optional_string(json, "lora_init", origin).value_or("");
  if (!info.lora_init.empty() && info.lora_init != kPissa && info.lora_init != kLoftq)
    throw BadFile("{}: lora_init: expected {} or {}, found \"{}\"", origin, kPissa, kLoftq, info.lora_init);
  info.scheme = files::require_string(json, "scheme", origin);
  info.merged_in_f32 = files::optional_bool(json, "merged_in_f32", origin).value_or(false);
  info.kept_codes = files::optional_bool(json, "kept_codes", origin).value_or(false);
  info.full = files::optional_string(json, "mode", origin).value_or("lora") == "full";
  info.weights_stay = files::optional_bool(json, "weights_stay", origin).value_or(false);
  info.static_ranges = files::optional_bool(json, "static_ranges", origin).value_or(false);
  info.steps = files::require_int(json, "steps", origin, 0);
  info.codes_checksum = files::optional_string(json, "codes_checksum", origin).value_or("");
  return info;
}

void write_run_info(const RunInfo& info, const std::filesystem::path& folder) {
  nlohmann::ordered_json json;
  json["base_model"] = info.base_model;
  if (info.base_format != RunInfo().base_format) json["base_format"] = info.base_format;
  if (!info.base_checksum.empty()) json["base_checksum"] = info.base_checksum;
  if (!info.lora_init.empty()) json["lora_init"] = info.lora_init;
  json["scheme"] = info.scheme;
  if (info.merged_in_f32) json["merged_in_f32"] = true;
  if (info.kept_codes) json["kept_codes"] = true;
  if (info.full) json["mode"] = "full";
  if (info.weights_stay) json["weights_stay"] = true;
  if (info.static_ranges) json["static_ranges"] = true;
  json["steps"] = info.steps;
  if (!info.codes_checksum.empty()) json["codes_checksum"] = info.codes_checksum;
  write_file(folder / kFileName, json.dump(2) + "\n");
}

}  // namespace temper::eval
