#include "export/gguf_in_place.h"

#include <cstring>
#include <map>

#include "base/progress.h"
#include "export/gguf_export.h"
#include "export/verify.h"
#include "files/gguf.h"

namespace temper::exporter {
namespace {

const files::GgufFile& file_of(const ExportSource& source) {
  const files::GgufFile* gguf = source.reader().gguf();
  if (!gguf)
    throw Unsupported("export.to gguf:same: {} is no GGUF file, whose layout could be kept; name a type, such as gguf:q4_0",
                      source.reader().path().string());
  if (source.arch().architecture->fused)
    throw Unsupported("export.to gguf:same: {}: matrices that are stored together are not written back",
                      source.arch().architecture->model_type);
  return *gguf;
}

/// Indices in the table of what was trained, by name in the file.
std::map<std::string_view, std::size_t> trained_tensors(const ExportSource& source) {
  std::map<std::string_view, std::size_t> trained;
  for (std::size_t i = 0; i < source.table().size(); ++i)
    if (source.adapters() && source.adapters()->find(i)) trained[source.table()[i].gguf_name] = i;
  return trained;
}

/// An adapted matrix as its own type in the file, rows in its order.
std::vector<std::byte> trained_bytes(const ExecContext& ctx, const ExportSource& source, std::size_t index) {
  const model::TensorInfo& info = source.table()[index];
  const model::StoredTensor stored = source.reader().stored(index);
  std::vector<std::byte> rows;
  if (stored.plain) {
    const Tensor merged = source.merged(ctx, index), out(stored.plain.dtype, merged->shape);
    ops::convert(ctx, merged, out);
    rows.resize(out->bytes());
    std::memcpy(rows.data(), out->data, rows.size());
  } else {
    if (!stored.encoded.codec->encodes())
      throw Unsupported(
          "export.to gguf:same: {} has an adapter, and is {}, which temper reads but does not write; export "
          "another type",
          info.gguf_name, stored.format);
    rows = source.encoded(ctx, index, *stored.encoded.codec, 0, info.shape[0]);
  }
  return info.permuted_heads == 0 ? rows : to_gguf_rows(rows, info.shape[0], info.permuted_heads);
}

bool belongs_to_parts(std::string_view key) { return key.starts_with("split."); }

}  // namespace

void write_gguf_in_place(const ExecContext& ctx, const ExportSource& source, const std::filesystem::path& path) {
  const files::GgufFile& file = file_of(source);
  const auto trained = trained_tensors(source);
  files::GgufWriter writer(path, file.alignment());
  for (const files::GgufKeyValue& kv : file.values())
    if (!belongs_to_parts(kv.key)) writer.add_value(kv.key, kv.value);
  for (const files::GgufTensor& tensor : file.tensors()) writer.declare_tensor(tensor.name, tensor.type, tensor.shape);
  Progress progress("write in place", static_cast<std::int64_t>(file.tensors().size()));
  std::int64_t done = 0;
  for (const files::GgufTensor& tensor : file.tensors()) {
    if (const auto found = trained.find(tensor.name); found != trained.end())
      writer.write(trained_bytes(ctx, source, found->second));
    else
      writer.write(tensor.data);
    progress.update(++done);
  }
  writer.commit();
}

void verify_gguf_in_place(const ExecContext& ctx, const ExportSource& source, const std::filesystem::path& path) {
  const files::GgufFile& before = file_of(source);
  const files::GgufFile after(path);
  const auto trained = trained_tensors(source);
  if (after.tensors().size() != before.tensors().size())
    throw VerifyFailed("{}: {} tensors, expected {}", path.string(), after.tensors().size(), before.tensors().size());
  for (const files::GgufTensor& tensor : before.tensors()) {
    const files::GgufTensor& found = after.at(tensor.name);
    if (found.type != tensor.type) throw VerifyFailed("{}: tensor {}: its type has changed", path.string(), tensor.name);
    const auto at = trained.find(tensor.name);
    if (at == trained.end())
      verify_bytes(tensor.data, found.data, path, tensor.name);
    else
      verify_bytes(trained_bytes(ctx, source, at->second), found.data, path, tensor.name);
  }
}

bool in_place_as_trained(const ExportSource& source) {
  for (const auto& [name, index] : trained_tensors(source)) {
    const quant::Codec* codec = source.reader().stored(index).encoded.codec;
    if (!codec || !source.has_trained_codes(index, *codec)) return false;
  }
  return true;
}

}  // namespace temper::exporter
