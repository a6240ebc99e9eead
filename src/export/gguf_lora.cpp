#include "export/gguf_lora.h"

#include <cmath>
#include <cstring>
#include <set>

#include "base/error.h"
#include "export/gguf_export.h"

namespace temper::exporter {
namespace {

using files::GgmlType;
using model::Adapters;

constexpr std::string_view kArchitecture = "llama", kType = "adapter", kAdapterType = "lora";
constexpr std::string_view kSuffixA = ".lora_a", kSuffixB = ".lora_b";

std::string tensor_name(const model::TensorTable& table, std::size_t tensor, std::string_view suffix) {
  return table[tensor].gguf_name + std::string(suffix);
}

std::string expect_text(const files::GgufFile& file, std::string_view key, std::string_view expected) {
  const std::string_view found = file.get_string(key);
  if (found != expected) throw Unsupported("{}: {} is \"{}\"; only \"{}\" is read", file.origin(), key, found, expected);
  return std::string(found);
}

/// Elements in F32, BF16 or F16 (which may be unaligned) as f32, in the file's order.
std::vector<float> elements(const files::GgufFile& file, const files::GgufTensor& tensor) {
  std::vector<float> out(static_cast<std::size_t>(tensor.shape.numel()));
  const auto copy = [&]<typename T>(T) {
    for (std::size_t i = 0; i < out.size(); ++i) {
      T value;
      std::memcpy(&value, tensor.data.data() + i * sizeof(T), sizeof(T));
      out[i] = to_float(value);
    }
  };
  switch (tensor.type) {
    case GgmlType::F32: copy(float{}); break;
    case GgmlType::BF16: copy(bf16{}); break;
    case GgmlType::F16: copy(f16{}); break;
    default:
      throw Unsupported("{}: tensor {}: expected F32, BF16 or F16, found type {}", file.origin(), tensor.name,
                        files::ggml_type_info(tensor.type).name);
  }
  return out;
}

void expect_shape(const files::GgufFile& file, const files::GgufTensor& tensor, const Shape& expected) {
  if (tensor.shape != expected)
    throw BadFile("{}: tensor {}: expected shape {}, found {}; is this an adapter for another base model?", file.origin(),
                  tensor.name, expected.str(), tensor.shape.str());
}

/// What a file's pairs of tensors adapt; every tensor must belong to one.
model::LoraConfig read_config(const files::GgufFile& file, const model::TensorTable& table) {
  std::set<std::string> known, modules;
  std::set<std::int64_t> layers;
  model::LoraConfig config;
  config.alpha = static_cast<double>(file.get_f32("adapter.lora.alpha"));
  for (int layer = 0; layer < table.layers(); ++layer) {
    for (const model::Linear linear : model::kLinears) {
      const std::size_t tensor = table.linear(layer, linear);
      const std::string a = tensor_name(table, tensor, kSuffixA), b = tensor_name(table, tensor, kSuffixB);
      if (!file.find(a) && !file.find(b)) continue;
      const Shape shape = file.at(a).shape;
      if (shape.rank() != 2) throw BadFile("{}: tensor {}: expected a matrix", file.origin(), a);
      if (modules.empty()) config.r = shape[0];
      if (shape[0] != config.r) config.rank_pattern.emplace_back(model::module_of(table[tensor]), shape[0]);
      modules.emplace(model::module_name(linear));
      layers.insert(layer);
      known.insert(a);
      known.insert(b);
    }
  }
  for (const files::GgufTensor& tensor : file.tensors())
    if (!known.contains(std::string(tensor.name)))
      throw BadFile("{}: unknown tensor {}; is this an adapter for another base model?", file.origin(), tensor.name);
  if (modules.empty()) throw BadFile("{}: no adapter in it", file.origin());
  config.target_modules = {modules.begin(), modules.end()};
  if (std::ssize(layers) < table.layers()) config.layers_to_transform = {layers.begin(), layers.end()};
  return config;
}

/// The one alpha of a GGUF adapter, whose scale is alpha / r for each pair.
float common_alpha(const Adapters& adapters, const model::TensorTable& table) {
  const auto alpha = [](const Adapters::Entry& entry) { return entry.scale * static_cast<float>(entry.a.rows()); };
  const Adapters::Entry& first = adapters.entries().front();
  for (const Adapters::Entry& entry : adapters.entries())
    if (std::abs(alpha(entry) - alpha(first)) > 1e-6f * std::abs(alpha(first)))
      throw Unsupported(
          "gguf-lora: alpha of {} is {}, that of {} {} (alpha = scale · r): a GGUF adapter has one for all; export adapter, "
          "or "
          "a merged model",
          table[first.tensor].hf_name, alpha(first), table[entry.tensor].hf_name, alpha(entry));
  return alpha(first);
}

}  // namespace

void write_gguf_lora(const Adapters& adapters, const model::TensorTable& table, const std::string& name,
                     const std::filesystem::path& path) {
  if (adapters.config().dora) throw Unsupported("gguf-lora: llama.cpp has no DoRA; export adapter, or a merged model");
  for (const Adapters::Entry& entry : adapters.entries())
    if (const auto& fused = table[entry.tensor].fused)
      throw Unsupported(
          "gguf-lora: {} is stored in {} with others, whose adapters need an alpha of their own, and a GGUF has one for "
          "all; "
          "export adapter, or a merged model",
          table[entry.tensor].hf_name, fused->hf_name);
  files::GgufWriter writer(path);
  writer.add_string("general.architecture", kArchitecture);
  writer.add_string("general.type", kType);
  writer.add_string("general.name", name);
  writer.add_u32("general.file_type", 0);  // all F32
  writer.add_u32("general.quantization_version", 2);
  writer.add_string("adapter.type", kAdapterType);
  writer.add_f32("adapter.lora.alpha", common_alpha(adapters, table));
  for (const Adapters::Entry& entry : adapters.entries()) {
    writer.declare_tensor(tensor_name(table, entry.tensor, kSuffixA), GgmlType::F32, entry.a.shape);
    writer.declare_tensor(tensor_name(table, entry.tensor, kSuffixB), GgmlType::F32, entry.b.shape);
  }
  for (const Adapters::Entry& entry : adapters.entries()) {
    writer.write(std::as_bytes(entry.a.span<const float>()));
    writer.write(
        to_gguf_rows(std::as_bytes(entry.b.span<const float>()), entry.b.rows(), table[entry.tensor].permuted_heads));
  }
  writer.commit();
}

Adapters read_gguf_lora(const model::TensorTable& table, const files::GgufFile& file) {
  expect_text(file, "general.type", kType);
  expect_text(file, "general.architecture", kArchitecture);
  expect_text(file, "adapter.type", kAdapterType);
  const model::LoraConfig config = read_config(file, table);
  Adapters adapters = [&] {
    try {
      return Adapters(table, config, /*seed=*/0);
    } catch (const BadRecipe& error) {  // here the config is a file's, not the user's
      throw BadFile("{}: {}", file.origin(), error.what());
    }
  }();
  for (const Adapters::Entry& entry : adapters.entries()) {
    const files::GgufTensor& a = file.at(tensor_name(table, entry.tensor, kSuffixA));
    const files::GgufTensor& b = file.at(tensor_name(table, entry.tensor, kSuffixB));
    expect_shape(file, a, entry.a.shape);
    expect_shape(file, b, entry.b.shape);
    std::ranges::copy(elements(file, a), entry.a.span<float>().begin());
    const std::vector<float> rows = elements(file, b);
    const auto out = entry.b.span<float>();
    for (std::int64_t r = 0; r < entry.b.rows(); ++r) {
      const std::int64_t from = model::gguf_row(r, entry.b.rows(), table[entry.tensor].permuted_heads);
      std::copy_n(rows.begin() + from * entry.b.cols(), entry.b.cols(), out.begin() + r * entry.b.cols());
    }
  }
  return adapters;
}

}  // namespace temper::exporter
