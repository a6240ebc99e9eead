#include "export/wire_export.h"

#include "export/hf_export.h"
#include "export/verify.h"

namespace temper::exporter {
namespace {

namespace fs = std::filesystem;

std::vector<std::byte> encoded_of(const ExecContext& ctx, const ExportSource& source, std::size_t index,
                                  const wires::Matrix& matrix) {
  const std::size_t from = matrix.role == quant::Role::Head ? source.table().head() : index;  // also of a tied table
  return source.encoded(ctx, from, *matrix.codec, 0, matrix.rows);
}

}  // namespace

void write_wire(const ExecContext& ctx, const ExportSource& source, const wires::Wire& wire, const quant::Scheme& scheme,
                const fs::path& folder) {
  const std::vector<wires::Matrix> matrices = model::wire_matrices(source.table(), scheme, source.arch().dtype);
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
  const std::vector<wires::Matrix> matrices = model::wire_matrices(source.table(), scheme, source.arch().dtype);
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
  }
}

}  // namespace temper::exporter
