// Measured sensitivities on disk.
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "base/checksum.h"
#include "base/log.h"
#include "files/json.h"
#include "ptq/sensitivity.h"

namespace temper::ptq {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kVersion = 2;  // 1: one measurement for a group of tensors, other formats by extrapolation

/// Of everything that the figures depend on.
std::string fingerprint(const ExecContext& ctx, const model::BaseWeights& base, std::span<const text::Sample> samples,
                        const SensitivityOptions& options) {
  Checksum sum;
  const auto add_text = [&](std::string_view text) { sum.add(std::as_bytes(std::span(text.data(), text.size()))); };
  for (std::size_t i = 0; i < base.table().size(); ++i) {
    const TensorView tensor = base.tensor(i);
    add_text(base.table()[i].hf_name);
    sum.add({static_cast<const std::byte*>(tensor.data), tensor.bytes()});
  }
  for (const text::Sample& sample : samples) {
    sum.add(std::as_bytes(std::span(sample.ids)));
    sum.add(std::as_bytes(std::span(sample.labelled)));
  }
  for (const quant::Codec* codec : options.codecs) add_text(codec->name());
  add_text(fmt::format("{} {}", options.sampled_rows, dtype_name(ctx.compute)));
  return sum.hex();
}

std::string type_name(const TypeCost& type) { return type.codec ? std::string(type.codec->name()) : "16-bit"; }

Json to_json(const Sensitivity& s, const model::TensorTable& table, const std::string& key, double minutes) {
  Json tensors = Json::object();
  for (const TensorCosts& tensor : s.tensors) {
    Json types = Json::object();
    for (const TypeCost& type : tensor.types) types[type_name(type)] = {type.choice.bytes, type.choice.cost};
    tensors[table[tensor.tensor].hf_name] = std::move(types);
  }
  return {{"what", "bytes, and nats of KL divergence, of each tensor in each format"},
          {"version", kVersion},
          {"key", key},
          {"layer_groups", s.layer_groups},
          {"minutes", minutes},
          {"passes", s.passes},
          {"seconds", s.seconds},
          {"fixed_bytes", s.fixed_bytes},
          {"weights", s.weights},
          {"tokens", s.tokens},
          {"tensors", std::move(tensors)}};
}

/// nullopt where the file is of something else. Figures are checked, for people edit files.
std::optional<Sensitivity> from_json(const Json& json, const model::TensorTable& table, const std::string& key,
                                     double minutes) {
  if (!json.is_object() || json.value("key", std::string()) != key) return std::nullopt;
  Sensitivity out;
  out.layer_groups = json.at("layer_groups").get<int>();
  if (out.layer_groups != table.layers() && json.at("minutes").get<double>() != minutes) return std::nullopt;
  out.passes = json.at("passes").get<double>();
  out.seconds = json.at("seconds").get<double>();
  out.fixed_bytes = json.at("fixed_bytes").get<std::uint64_t>();
  out.weights = json.at("weights").get<std::int64_t>();
  out.tokens = json.at("tokens").get<std::int64_t>();
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i].role == quant::Role::Norm) continue;
    TensorCosts costs{i, {}};
    for (const auto& [name, figures] : json.at("tensors").at(table[i].hf_name).items()) {
      const quant::Codec* codec = name == "16-bit" ? nullptr : quant::find_codec(name);
      if (!codec && name != "16-bit") return std::nullopt;
      costs.types.push_back({codec, {figures.at(0).get<std::uint64_t>(), figures.at(1).get<double>()}});
    }
    out.tensors.push_back(std::move(costs));
  }
  return out;
}

}  // namespace

Sensitivity cached_sensitivity(const ExecContext& ctx, model::BaseWeights& base, const model::ArchSpec& arch,
                               std::span<const text::Sample> samples, const SensitivityOptions& options,
                               const std::filesystem::path& cache) {
  const std::string key = fingerprint(ctx, base, samples, options);
  if (std::filesystem::is_regular_file(cache)) {
    try {
      const Json json = Json::parse(read_file(cache));
      const bool current = json.is_object() && json.value("version", 1) == kVersion;
      if (auto found = current ? from_json(json, base.table(), key, options.minutes) : std::nullopt) {
        log_info("sensitivities read from {}", cache.string());
        return *std::move(found);
      }
      log_info(
          "{}: {}; measuring again", cache.string(),
          current ? "of another model, text, set of formats or time" : "of another version of temper, which measured less");
    } catch (const Json::exception& error) {
      log_warning("{}: not as written ({}); measuring again", cache.string(), error.what());
    }
  }
  Sensitivity measured = measure_sensitivity(ctx, base, arch, samples, options);
  write_file(cache, to_json(measured, base.table(), key, options.minutes).dump(1) + "\n");
  return measured;
}

}  // namespace temper::ptq
