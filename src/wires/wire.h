// Checkpoint formats of quantized Hugging Face folders: how a matrix in a number format lies there as several tensors, and
// what config.json says of it. Both directions stand side by side, so that what one writes the other reads.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/safetensors.h"
#include "quant/scheme.h"
#include "quant/static_range.h"

namespace temper::wires {

/// A matrix of the model: its name in the checkpoint, and what it is held in.
struct Matrix {
  std::string name;  ///< "model.layers.0.self_attn.q_proj.weight"
  quant::Role role = quant::Role::Linear;
  std::int64_t rows = 0, cols = 0;
  const quant::Codec* codec = nullptr;   ///< nullptr: plain 16-bit, stored under its own name.
  const quant::Codec* input = nullptr;   ///< Format of the activations that are multiplied with it; nullptr: 16 bit.
  DType dtype = DType::BF16;             ///< What the model's other tensors are in, and what the reader decodes to.
  quant::StaticRange input_range = {};   ///< Of `input`, where its range is given; for `pack`, and from `describe`.
  const quant::Codec* output = nullptr;  ///< Format that the product is rounded to; nullptr: none.
  quant::StaticRange output_range = {};
};

/// One stored tensor of a packed matrix.
struct Part {
  files::SafetensorsEntry entry;
  std::vector<std::byte> bytes;
};

/// Finds a stored tensor by name, or null. Its bytes may be unaligned.
using FindTensor = std::function<const files::SafetensorsTensor*(std::string_view name)>;
/// The tensor of that name; throws BadFile if it is missing or has another dtype or shape.
const files::SafetensorsTensor& require_tensor(const FindTensor& find, std::string_view name, DType dtype,
                                               const Shape& shape);

class Wire {
 public:
  virtual ~Wire() = default;

  virtual std::string_view name() const = 0;     ///< Export target: "torchao", "compressed-tensors", …
  virtual std::string_view readers() const = 0;  ///< Who loads it: "transformers, vLLM".
  /// Empty if it can carry the matrix, else why not ("int4 only in groups of …").
  virtual std::string refusal(const Matrix& matrix) const = 0;
  /// True if its config.json has one format for all linears.
  virtual bool one_format() const { return false; }
  /// True if it has words for rounded outputs.
  virtual bool carries_outputs() const { return false; }

  // ---- Writing ----
  /// Names, dtypes and shapes of the tensors that `pack` will give, in its order: writers declare them first.
  virtual std::vector<files::SafetensorsEntry> entries(const Matrix& matrix) const = 0;
  /// The matrix's encoded rows (codec->row_bytes each, HF order) as stored tensors.
  virtual std::vector<Part> pack(const Matrix& matrix, std::span<const std::byte> encoded) const = 0;
  /// `quantization_config` of config.json for a model of these tensors: all it has, norms with their role.
  virtual nlohmann::json config(std::span<const Matrix> matrices) const = 0;
  /// The safetensors header's metadata, of the same tensors.
  virtual files::SafetensorsMetadata metadata(std::span<const Matrix>) const { return {{"format", "pt"}}; }

  // ---- Reading ----
  /// True for a quantization_config of this wire.
  virtual bool matches(const nlohmann::json& quantization_config) const = 0;
  /// Fills codec and input of a matrix whose name, role, shape and dtype are given, from the config, the file's metadata and
  /// its tensors; leaves codec null where the matrix is stored plain. Throws Unsupported or BadFile naming tensor and field.
  virtual void describe(Matrix& matrix, const nlohmann::json& quantization_config,
                        const files::SafetensorsMetadata& metadata, const FindTensor& find) const = 0;
  /// The matrix's encoded rows from its stored tensors: the inverse of pack, bit for bit. Every shape is checked first.
  virtual std::vector<std::byte> unpack(const Matrix& matrix, const FindTensor& find) const = 0;
};

/// Wire::refusal, and that of rounded outputs.
std::string refusal(const Wire& wire, const Matrix& matrix);

/// All wires.
std::span<const Wire* const> wires();
/// By export target's name, or null.
const Wire* find_wire(std::string_view name);
/// The wire of a quantization_config; throws Unsupported naming its quant_method and those that are read.
const Wire& wire_of(const nlohmann::json& quantization_config, const std::string& origin);

}  // namespace temper::wires
