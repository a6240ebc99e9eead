#include "export/wire_export.h"

#include "export/hf_export.h"
#include "export/verify.h"
#include "quant/activations.h"

namespace temper::exporter {
namespace {

namespace fs = std::filesystem;

/// The tensors that a stored matrix is made from: of the head of a tied table, that table.
std::vector<std::size_t> sources_of(const ExportSource& source, std::vector<std::size_t> tensors) {
  for (std::size_t& index : tensors) index = index < source.table().size() ? index : source.table().head();
  return tensors;
}

/// A range that parts of a stored matrix share.
quant::StaticRange common_range(const wires::Matrix& matrix, std::span<const quant::StaticRange> ranges) {
  for (const quant::StaticRange& range : ranges)
    if (range != ranges.front()) throw LogicError("{}: its parts have different ranges", matrix.name);
  return ranges.front();
}

/// The matrices of a scheme, with the static ranges of the source.
model::WireMatrices matrices_of(const ExportSource& source, const quant::Scheme& scheme) {
  model::WireMatrices all = model::wire_matrices(source.table(), scheme, source.arch().dtype);
  for (std::size_t i = 0; i < all.matrices.size(); ++i) {
    wires::Matrix& matrix = all.matrices[i];
    std::vector<quant::StaticRange> inputs, outputs;
    for (const std::size_t from : sources_of(source, all.tensors[i])) {
      inputs.push_back(source.input_range(from));
      outputs.push_back(source.output_range(from));
    }
    matrix.input_range = common_range(matrix, inputs);
    matrix.output_range = common_range(matrix, outputs);
    const auto unknown = [](const quant::Codec* codec, const quant::StaticRange& range) {
      return codec && quant::has_static_range(*codec) && !range.known();
    };
    if (unknown(matrix.input, matrix.input_range) || unknown(matrix.output, matrix.output_range))
      throw BadRecipe(
          "scheme {}: {}: its activations have a static range, which nothing has measured; use `temper quantize` with "
          "--calibration, or train with the scheme",
          scheme.name, matrix.name);
  }
  return all;
}

std::string_view name_of(const quant::Codec* codec) { return codec ? codec->name() : "16 bit"; }

/// What is found of a tensor beside its codes.
void require_same_rounding(const wires::Matrix& matrix, const model::StoredTensor& found, const fs::path& folder) {
  if (found.input != matrix.input)
    throw VerifyFailed("{}: tensor {}: activations are rounded to {}, expected {}", folder.string(), matrix.name,
                       name_of(found.input), name_of(matrix.input));
  if (found.output != matrix.output)
    throw VerifyFailed("{}: tensor {}: outputs are rounded to {}, expected {}", folder.string(), matrix.name,
                       name_of(found.output), name_of(matrix.output));
  if (found.input_range != matrix.input_range || found.output_range != matrix.output_range)
    throw VerifyFailed("{}: tensor {}: static ranges differ: of inputs {} and {}, of outputs {} and {}", folder.string(),
                       matrix.name, found.input_range.scale, matrix.input_range.scale, found.output_range.scale,
                       matrix.output_range.scale);
}

}  // namespace

void write_wire(const ExecContext& ctx, const ExportSource& source, const wires::Wire& wire, const quant::Scheme& scheme,
                const fs::path& folder) {
  const model::WireMatrices all = matrices_of(source, scheme);
  HfFolder out(ctx, source, folder);
  out.quantization_config = wire.config(all.matrices);
  out.metadata = wire.metadata(all.matrices);
  std::map<std::size_t, std::size_t> matrix_of;  // by the first of its tensors
  for (std::size_t i = 0; i < all.matrices.size(); ++i) {
    if (!all.matrices[i].codec) continue;
    for (const std::size_t index : all.tensors[i]) out.packed[index] = {};
    out.packed[all.tensors[i].front()] = wire.entries(all.matrices[i]);
    matrix_of[all.tensors[i].front()] = i;
  }
  out.write([&](std::size_t index, const auto& take) {
    const auto found = matrix_of.find(index);
    if (found == matrix_of.end()) return;  // its rows are among the first one's
    const wires::Matrix& matrix = all.matrices[found->second];
    const std::vector<std::size_t> parts = sources_of(source, all.tensors[found->second]);
    for (const wires::Part& part : wire.pack(matrix, source.encoded(ctx, parts, *matrix.codec))) take(part.bytes);
  });
}

void verify_wire(const ExecContext& ctx, const ExportSource& source, const quant::Scheme& scheme, const fs::path& folder) {
  const auto reader = model::CheckpointReader::open(folder);
  const model::WireMatrices all = matrices_of(source, scheme);
  for (std::size_t i = 0; i < all.matrices.size(); ++i) {
    const wires::Matrix& matrix = all.matrices[i];
    if (!matrix.codec) {
      for (const std::size_t index : all.tensors[i]) verify_plain(ctx, source, reader, index, folder);
      continue;
    }
    std::vector<std::byte> rows;
    for (const std::size_t index : all.tensors[i]) {
      const model::StoredTensor found = reader.stored(index);  // a tied table that was untied has its head last, too
      if (found.plain) throw VerifyFailed("{}: tensor {}: is not quantized", folder.string(), matrix.name);
      require_same_rounding(matrix, found, folder);
      rows.insert(rows.end(), found.encoded.bytes.begin(), found.encoded.bytes.end());
    }
    // Formats that differ only in how parameters were found are one format in a file.
    verify_bytes(source.encoded(ctx, sources_of(source, all.tensors[i]), *matrix.codec), rows, folder, matrix.name);
  }
}

}  // namespace temper::exporter
