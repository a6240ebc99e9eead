// torchao checkpoints as transformers 5 writes and reads them (torchao 0.18): see torchao_layouts.h for the tensors.
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "files/json.h"
#include "wires/formats.h"
#include "wires/torchao_layouts.h"

namespace temper::wires {
namespace {

using namespace torchao;

constexpr files::JsonLimits kMetadataLimits{.max_bytes = 1 << 20, .max_depth = 16};

/// The class that holds a codec, or null.
const Layout* layout_for(const quant::Codec* codec) {
  const quant::ScaledCodec* scaled = quant::as_scaled(codec);
  if (!scaled) return nullptr;
  const auto found = std::ranges::find_if(layouts(), [&](const Layout* layout) { return layout->takes(scaled->format()); });
  return found == layouts().end() ? nullptr : *found;
}

const Layout& layout_of(const Matrix& matrix) {
  const Layout* layout = layout_for(matrix.codec);
  if (!layout) throw LogicError("{}: torchao has no class for {}", matrix.name, matrix.codec->name());
  return *layout;
}

/// The configuration that a quantization_config has for a parameter, or null. Patterns ("re:…") are not looked into: they
/// matter only to formats with one group in a row.
Json config_of(const Json& config, const std::string& name) {
  const Json* type = files::find_key(config, "quant_type");
  const Json* one = type ? files::find_key(*type, "default") : nullptr;
  if (!one || !one->is_object() || one->value("_type", Json()) != "FqnToConfig") return one ? *one : Json();
  const Json* data = files::find_key(*one, "_data");
  const Json* map = data ? files::find_key(*data, "fqn_to_config") : nullptr;
  for (const std::string& key : {name, name.substr(0, name.rfind('.')), std::string("_default")})
    if (const Json* found = map ? files::find_key(*map, key) : nullptr) return *found;
  return Json();
}

class Torchao final : public Wire {
 public:
  std::string_view name() const override { return "torchao"; }
  std::string_view readers() const override { return "transformers, vLLM"; }

  std::string refusal(const Matrix& matrix) const override {
    if (!matrix.codec) return "";
    const Layout* layout = layout_for(matrix.codec);
    if (!layout)
      return fmt::format(
          "{}: torchao has no tensor class for it that safetensors can hold; it has integers of 2 to 8 bits in groups or "
          "rows, int4 (tinygemm), fp8 e4m3, NVFP4, MXFP8 and MXFP4",
          matrix.codec->name());
    return layout->refusal(matrix);
  }

  std::vector<files::SafetensorsEntry> entries(const Matrix& matrix) const override {
    std::vector<files::SafetensorsEntry> all;
    for (Field& field : layout_of(matrix).fields(matrix))
      all.push_back({field_name(matrix, field.name), field.dtype, std::move(field.shape)});
    return all;
  }

  std::vector<Part> pack(const Matrix& matrix, std::span<const std::byte> encoded) const override {
    const auto taken = quant::as_scaled(matrix.codec)->take_apart(encoded, matrix.rows, matrix.cols);
    FieldBytes bytes = layout_of(matrix).pack(matrix, taken);
    std::vector<Part> parts;
    for (files::SafetensorsEntry& entry : entries(matrix))
      parts.push_back({std::move(entry), std::move(bytes[parts.size()])});
    return parts;
  }

  /// One configuration for all linears where that says it all, else one for each parameter.
  Json config(std::span<const Matrix> matrices) const override {
    std::set<Json> different;
    bool by_name = false;
    Json each = Json::object();
    for (const Matrix& matrix : matrices) {
      if (matrix.codec) different.insert(each[matrix.name] = layout_of(matrix).config(matrix));
      by_name |= (matrix.codec != nullptr) != (matrix.role == quant::Role::Linear);
    }
    by_name |= different.size() != 1;
    Json type =
        by_name ? versioned("FqnToConfig", {{"fqn_to_config", each}, {"module_fqn_to_config", each}}) : *different.begin();
    return {{"quant_method", "torchao"},
            {"quant_type", {{"default", std::move(type)}}},
            {"modules_to_not_convert", by_name ? Json::array() : Json()},
            {"include_input_output_embeddings", by_name},
            {"untie_embedding_weights", false}};
  }

  files::SafetensorsMetadata metadata(std::span<const Matrix> matrices) const override {
    files::SafetensorsMetadata all = {{"format", "pt"}};
    Json names = Json::array();
    for (const Matrix& matrix : matrices) {
      names.push_back(matrix.name);
      all[matrix.name] = matrix.codec ? attributes_text(matrix) : kPlain;
    }
    all["tensor_names"] = names.dump();
    return all;
  }

  bool matches(const Json& config) const override {
    const auto method = config.find("quant_method");
    return method != config.end() && *method == "torchao";
  }

  void describe(Matrix& matrix, const Json& config, const files::SafetensorsMetadata& metadata,
                const FindTensor& find) const override {
    const auto found = metadata.find(matrix.name);
    if (found == metadata.end()) {
      if (find(matrix.name)) return;  // plain
      throw BadFile("{}: neither a tensor of that name nor torchao's metadata of it", matrix.name);
    }
    const Json json = files::parse_json(found->second, matrix.name + ": metadata", kMetadataLimits);
    const std::string& type = files::require_string(json, "_type", matrix.name);
    if (type == "Tensor") return;
    const auto layout = std::ranges::find(layouts(), type, &Layout::type);
    if (layout == layouts().end()) {
      std::vector<std::string_view> known;
      for (const Layout* l : layouts()) known.push_back(l->type());
      throw Unsupported("{}: torchao's {} is not read; temper reads {}", matrix.name, type, fmt::join(known, ", "));
    }
    (*layout)->describe(matrix, files::require_object(json, "_data", matrix.name), config_of(config, matrix.name),
                        FieldReader(matrix, find));
    if (!matrix.codec->fits(matrix.cols))
      throw BadFile("{}: groups of {} do not divide rows of {}", matrix.name, matrix.codec->group(), matrix.cols);
  }

  std::vector<std::byte> unpack(const Matrix& matrix, const FindTensor& find) const override {
    const auto parts = layout_of(matrix).unpack(matrix, FieldReader(matrix, find));
    return quant::as_scaled(matrix.codec)->put_together(parts, matrix.rows, matrix.cols);
  }

 private:
  static constexpr const char* kPlain = R"({"_type": "Tensor"})";

  static std::string attributes_text(const Matrix& matrix) {
    const Layout& layout = layout_of(matrix);
    Json names = Json::array();
    for (const Field& field : layout.fields(matrix)) names.push_back(field.name);
    return Json{{"_type", layout.type()}, {"_data", layout.attributes(matrix)}, {"_tensor_data_names", names}}.dump();
  }
};

}  // namespace

const Wire& torchao_wire() {
  static const Torchao wire;
  return wire;
}

}  // namespace temper::wires
