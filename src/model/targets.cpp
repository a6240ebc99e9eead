#include "model/targets.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.h"
#include "quant/scaled_codec.h"
#include "wires/carriers.h"

namespace temper::model {

namespace {

std::string_view name_of(const quant::Codec* codec) { return codec ? codec->name() : std::string_view("16 bit"); }

/// A tensor of the table as what it is stored in, which may have more rows.
wires::Matrix wire_matrix(const TensorInfo& info, const quant::Scheme& scheme, DType dtype) {
  const bool norm = info.role == quant::Role::Norm, looked_up = info.role == quant::Role::Embedding;
  wires::Matrix matrix{info.stored_hf_name(),
                       info.role,
                       norm ? 1 : info.stored_shape()[0],
                       info.shape[info.shape.rank() - 1],
                       scheme.codec_for(info.place),
                       looked_up ? nullptr : scheme.input_codec_for(info.place),
                       dtype};
  matrix.output = scheme.output_codec_for(info.place);
  return matrix;
}

void require_same(const wires::Matrix& first, const wires::Matrix& part, const std::string& first_name,
                  const std::string& name) {
  const auto check = [&](std::string_view what, const quant::Codec* a, const quant::Codec* b) {
    if (a != b)
      throw BadRecipe("{}: {} {} of {}, {} of {}: a checkpoint stores them as one matrix, in one format", part.name,
                      name_of(a), what, first_name, name_of(b), name);
  };
  check("weights", first.codec, part.codec);
  check("activations", first.input, part.input);
  check("outputs", first.output, part.output);
}

/// True if parts that are fit apart have, one after another, the parameters that the matrix would have.
bool fit_apart(const quant::Codec& codec, const TensorTable& table, std::span<const std::size_t> parts) {
  if (!codec.joins_rows()) return true;
  const quant::ScaledCodec* scaled = quant::as_scaled(&codec);
  return scaled && scaled->format().sharing == quant::Sharing::Band &&
         std::ranges::all_of(parts, [&](std::size_t part) { return table[part].fused->first_row % quant::kBandRows == 0; });
}

/// The wire's schemes whose parameters belong to rows or to groups in them.
std::vector<std::string> schemes_by_rows(const wires::Wire& wire) {
  std::vector<std::string> names = wires::schemes_of(wire.name());
  std::erase_if(names, [](const std::string& name) {
    const quant::Codec* linear = quant::scheme(name).linear;
    return linear && linear->joins_rows();
  });
  return names;
}

/// Parts of one matrix have what belongs to them apart, and the file has it once.
void require_parts_carried(const wires::Wire& wire, const TensorTable& table, const wires::Matrix& matrix,
                           std::span<const std::size_t> parts, PartsFit fit) {
  if (parts.size() == 1) return;
  if (matrix.output)
    throw BadRecipe(
        "{}: {}: outputs in {}: {} and {} have ranges of their own, and are stored as one matrix, which has one; leave the "
        "outputs out (…/…/none)",
        wire.name(), matrix.name, matrix.output->name(), table[parts.front()].hf_name, table[parts.back()].hf_name);
  if (!matrix.codec || fit == PartsFit::Together || fit_apart(*matrix.codec, table, parts)) return;
  throw BadRecipe(
      "{} cannot carry {}: it has parameters of a whole matrix, which {} is there, and here {} to {} are fit each by "
      "itself. "
      "`temper quantize` fits a 16-bit model's as a whole; to train, take a scheme with parameters of rows or groups: {}",
      wire.name(), matrix.codec->name(), matrix.name, table[parts.front()].hf_name, table[parts.back()].hf_name,
      fmt::join(schemes_by_rows(wire), ", "));
}

}  // namespace

WireMatrices wire_matrices(const TensorTable& table, const quant::Scheme& scheme, DType dtype) {
  WireMatrices all;
  for (std::vector<std::size_t>& parts : stored_tensors(table)) {
    const TensorInfo& first = table[parts.front()];
    all.matrices.push_back(wire_matrix(first, scheme, dtype));
    for (const std::size_t part : parts)
      require_same(all.matrices.back(), wire_matrix(table[part], scheme, dtype), first.hf_name, table[part].hf_name);
    all.tensors.push_back(std::move(parts));
  }
  const TensorInfo& head = table[table.head()];
  if (head.place.tied && all.matrices.front().codec) {
    wires::Matrix matrix = all.matrices.front();
    matrix.name = "lm_head.weight";
    matrix.role = quant::Role::Head;
    matrix.input = scheme.input_codec_for(head.place);
    all.matrices.push_back(std::move(matrix));
    all.tensors.push_back({table.size()});
  }
  return all;
}

const wires::Wire* wire_of_target(std::string_view target) {
  if (target == "hf" || target == "adapter" || target == "gguf-lora" || target.starts_with("gguf:")) return nullptr;
  if (target == "executorch") return wires::find_wire("torchao");
  if (const wires::Wire* wire = wires::find_wire(target)) return wire;
  std::vector<std::string_view> names;
  for (const wires::Wire* wire : wires::wires()) names.push_back(wire->name());
  throw BadRecipe(
      "export.to: \"{}\" is no target; there are gguf:q4_0, gguf:q4_k_m and the other schemes of llama.cpp, gguf:bf16, "
      "gguf:f16, gguf-lora, hf, adapter, executorch, {}",
      target, fmt::join(names, ", "));
}

void require_carried(const wires::Wire& wire, const TensorTable& table, const quant::Scheme& scheme, DType dtype,
                     PartsFit fit) {
  require_fit(table, scheme);
  const WireMatrices all = wire_matrices(table, scheme, dtype);
  const auto first = std::ranges::find_if(all.matrices, [](const wires::Matrix& m) { return m.codec != nullptr; });
  for (std::size_t i = 0; i < all.matrices.size(); ++i) {
    const wires::Matrix& matrix = all.matrices[i];
    std::string why = wires::refusal(wire, matrix);
    if (why.empty() && wire.one_format() && matrix.codec && matrix.codec != first->codec)
      why = fmt::format("{}, but {} has {}: all linears have one format there", matrix.codec->name(), first->name,
                        first->codec->name());
    if (!why.empty())
      throw BadRecipe("{} cannot carry scheme {}: {}: {}. Schemes that it carries: {}", wire.name(), scheme.name,
                      matrix.name, why, fmt::join(wires::schemes_of(wire.name()), ", "));
    require_parts_carried(wire, table, matrix, all.tensors[i], fit);
  }
}

void require_target(std::string_view target, const TensorTable& table, const quant::Scheme& scheme, DType dtype,
                    PartsFit fit) {
  // XNNPACK multiplies 8-bit activations of each token with integers in groups of 32, which other schemes are not.
  if (target == "executorch" && scheme.name != "int8-int4")
    throw BadRecipe("executorch cannot carry scheme {}; it carries int8-int4 (phone-deployment)", scheme.name);
  if (const wires::Wire* wire = wire_of_target(target)) return require_carried(*wire, table, scheme, dtype, fit);
  if (!target.starts_with("gguf:") || std::ranges::find(scheme.wires, target) != scheme.wires.end()) return;
  throw BadRecipe("{} cannot carry scheme {} as trained; it carries {}. Targets that carry {}: {}", target, scheme.name,
                  fmt::join(wires::schemes_of(target), ", "), scheme.name, fmt::join(wires::targets_of(scheme), ", "));
}

}  // namespace temper::model
