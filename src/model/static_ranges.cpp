#include "model/static_ranges.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "files/safetensors.h"
#include "quant/activations.h"
#include "quant/scaled_codec.h"

namespace temper::model {
namespace {

bool is_static(const quant::Codec* codec) { return codec && quant::has_static_range(*codec); }
bool is_asymmetric(const quant::Codec* codec) { return quant::as_scaled(codec)->format().asymmetric(); }

/// Names of a range's tensors.
struct Names {
  std::string scale, zero;
  Names(const TensorInfo& info, const RangeSite& site)
      : scale(fmt::format("{}.{}_scale", module_of(info), site.output ? "output" : "input")),
        zero(fmt::format("{}.{}_zero_point", module_of(info), site.output ? "output" : "input")) {}
};

template <typename T>
T only_value(const files::SafetensorsFile& file, const std::string& name, DType dtype) {
  const files::SafetensorsTensor* tensor = file.find(name);
  if (!tensor) throw BadFile("{}: tensor {} is missing; the scheme has changed since", file.origin(), name);
  if (tensor->dtype != dtype || tensor->shape.numel() != 1)
    throw BadFile("{}: {}: expected one {}, found {} {}", file.origin(), name, dtype_name(dtype), dtype_name(tensor->dtype),
                  tensor->shape.str());
  T value;
  std::memcpy(&value, tensor->data.data(), sizeof(T));
  return value;
}

}  // namespace

std::vector<RangeSite> range_sites(const EncodedWeights& weights) {
  const TensorTable& table = weights.table();
  std::vector<RangeSite> sites;
  const auto add = [&](RangeSite site, std::size_t index) {
    if (!is_static(site.codec)) return;
    const auto same = std::ranges::find_if(sites, [&](const RangeSite& other) {
      return other.layer == site.layer && !other.output && !site.output && other.input == site.input &&
             other.codec == site.codec;
    });
    if (same != sites.end()) return same->tensors.push_back(index);
    site.name = fmt::format("{} {}", module_of(table[index]), site.output ? "output" : "input");
    site.tensors = {index};
    sites.push_back(std::move(site));
  };
  for (int layer = 0; layer < table.layers(); ++layer)
    for (const Linear l : kLinears) {
      const std::size_t index = table.linear(layer, l);
      add({"", layer, false, input_of(l), l, weights.input(index), {}}, index);
      add({"", layer, true, input_of(l), l, weights.output(index), {}}, index);
    }
  add({"", -1, false, LinearInput::Head, Linear::Q, weights.input(table.head()), {}}, table.head());
  return sites;
}

bool needs_ranges(const TensorTable& table, const quant::Scheme& scheme) {
  return std::ranges::any_of(table.all(), [&](const TensorInfo& info) {
    return is_static(scheme.input_codec_for(info.place)) || is_static(scheme.output_codec_for(info.place));
  });
}

quant::StaticRange range_of(const EncodedWeights& weights, const RangeSite& site) {
  const std::size_t index = site.tensors.front();
  return site.output ? weights.output_range(index) : weights.input_range(index);
}

void set_range(EncodedWeights& weights, const RangeSite& site, const quant::StaticRange& range) {
  for (const std::size_t index : site.tensors)
    site.output ? weights.set_output_range(index, range) : weights.set_input_range(index, range);
}

void save_ranges(const EncodedWeights& weights, const std::filesystem::path& path) {
  std::vector<files::SafetensorsEntry> entries;
  std::vector<std::vector<std::byte>> values;
  const auto add = [&](const std::string& name, DType dtype, const auto& value) {
    entries.push_back({name, dtype, {1}});
    const auto bytes = std::as_bytes(std::span(&value, 1));
    values.emplace_back(bytes.begin(), bytes.end());
  };
  for (const RangeSite& site : range_sites(weights)) {
    const quant::StaticRange range = range_of(weights, site);
    if (!range.known()) throw LogicError("{}: no range to save", site.name);
    for (const std::size_t index : site.tensors) {
      const Names names(weights.table()[index], site);
      add(names.scale, DType::F32, range.scale);
      if (is_asymmetric(site.codec)) add(names.zero, DType::I32, range.zero);
    }
  }
  files::SafetensorsWriter writer(path, entries, {{"scheme", weights.scheme().name}});
  for (const std::vector<std::byte>& value : values) writer.write(value);
  writer.commit();
}

void restore_ranges(const std::filesystem::path& path, EncodedWeights& weights) {
  const files::SafetensorsFile file(path);
  for (const RangeSite& site : range_sites(weights))
    for (const std::size_t index : site.tensors) {
      const Names names(weights.table()[index], site);
      quant::StaticRange range{only_value<float>(file, names.scale, DType::F32), 0};
      if (is_asymmetric(site.codec)) range.zero = only_value<std::int32_t>(file, names.zero, DType::I32);
      if (!(range.scale > 0) || !std::isfinite(range.scale) || range.zero < -128 || range.zero > 127)
        throw BadFile("{}: {}: expected a finite scale above 0 and a zero point from -128 to 127, found {} and {}",
                      file.origin(), names.scale, range.scale, range.zero);
      site.output ? weights.set_output_range(index, range) : weights.set_input_range(index, range);
    }
}

}  // namespace temper::model
