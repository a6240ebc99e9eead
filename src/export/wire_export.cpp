#include "export/wire_export.h"

#include "export/hf_export.h"
#include "export/verify.h"
#include "quant/activations.h"

namespace temper::exporter {
namespace {

namespace fs = std::filesystem;

std::vector<std::byte> encoded_of(const ExecContext& ctx, const ExportSource& source, std::size_t index,
                                  const wires::Matrix& matrix) {
  const std::size_t from = matrix.role == quant::Role::Head ? source.table().head() : index;  // also of a tied table
  return source.encoded(ctx, from, *matrix.codec, 0, matrix.rows);
}

/// The matrices of a scheme, with the static ranges of the source.
std::vector<wires::Matrix> matrices_of(const ExportSource& source, const quant::Scheme& scheme) {
  std::vector<wires::Matrix> matrices = model::wire_matrices(source.table(), scheme, source.arch().dtype);
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    wires::Matrix& matrix = matrices[i];
    const std::size_t from = matrix.role == quant::Role::Head ? source.table().head() : i;
    matrix.input_range = source.input_range(from);
    matrix.output_range = source.output_range(from);
    const auto unknown = [](const quant::Codec* codec, const quant::StaticRange& range) {
      return codec && quant::has_static_range(*codec) && !range.known();
    };
    if (unknown(matrix.input, matrix.input_range) || unknown(matrix.output, matrix.output_range))
      throw BadRecipe(
          "scheme {}: {}: its activations have a static range, which nothing has measured; use `temper quantize` with "
          "--calibration, or train with the scheme",
          scheme.name, matrix.name);
  }
  return matrices;
}

}  // namespace

void write_wire(const ExecContext& ctx, const ExportSource& source, const wires::Wire& wire, const quant::Scheme& scheme,
                const fs::path& folder) {
  const std::vector<wires::Matrix> matrices = matrices_of(source, scheme);
  HfFolder out(ctx, source, folder);
  out.quantization_config = wire.config(matrices);
  out.metadata = wire.metadata(matrices);
  for (std::size_t i = 0; i < matrices.size(); ++i)
    if (matrices[i].codec) out.packed[i] = wire.entries(matrices[i]);
  out.write([&](std::size_t index, const auto& take) {
    for (const wires::Part& part : wire.pack(matrices[index], encoded_of(ctx, source, index, matrices[index])))
      take(part.bytes);
  });
}

void verify_wire(const ExecContext& ctx, const ExportSource& source, const quant::Scheme& scheme, const fs::path& folder) {
  const auto reader = model::CheckpointReader::open(folder);
  const std::vector<wires::Matrix> matrices = matrices_of(source, scheme);
  for (std::size_t i = 0; i < matrices.size(); ++i) {
    const wires::Matrix& matrix = matrices[i];
    const model::StoredTensor found = reader.stored(i);  // a tied table that was untied has its head last, too
    if (!matrix.codec) {
      verify_plain(ctx, source, reader, i, folder);
      continue;
    }
    if (found.plain) throw VerifyFailed("{}: tensor {}: is not quantized", folder.string(), matrix.name);
    // Formats that differ only in how parameters were found are one format in a file.
    verify_bytes(encoded_of(ctx, source, i, matrix), found.encoded.bytes, folder, matrix.name);
    if (found.input != matrix.input)
      throw VerifyFailed("{}: tensor {}: activations are rounded to {}, expected {}", folder.string(), matrix.name,
                         found.input ? found.input->name() : "16 bit", matrix.input ? matrix.input->name() : "16 bit");
    if (found.output != matrix.output)
      throw VerifyFailed("{}: tensor {}: outputs are rounded to {}, expected {}", folder.string(), matrix.name,
                         found.output ? found.output->name() : "16 bit", matrix.output ? matrix.output->name() : "16 bit");
    if (found.input_range != matrix.input_range || found.output_range != matrix.output_range)
      throw VerifyFailed("{}: tensor {}: static ranges differ: of inputs {} and {}, of outputs {} and {}", folder.string(),
                         matrix.name, found.input_range.scale, matrix.input_range.scale, found.output_range.scale,
                         matrix.output_range.scale);
  }
}

}  // namespace temper::exporter
