#include "export/gguf_in_place.h"

#include <cstring>
#include <map>
#include <set>

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
  return *gguf;
}

/// Tensors of the file with something that was trained, by name: the tensors of the table that lie in each, in their order.
std::map<std::string_view, std::vector<std::size_t>> trained_tensors(const ExportSource& source) {
  std::map<std::string_view, std::vector<std::size_t>> parts;
  std::set<std::string_view> trained;
  for (std::size_t i = 0; i < source.table().size(); ++i) {
    const std::string_view name = source.table()[i].stored_gguf_name();
    parts[name].push_back(i);
    if (source.adapters() && source.adapters()->find(i)) trained.insert(name);
  }
  std::erase_if(parts, [&](const auto& entry) { return !trained.contains(entry.first); });
  return parts;
}

/// A matrix as its own type in the file, rows in its order.
std::vector<std::byte> matrix_bytes(const ExecContext& ctx, const ExportSource& source, std::size_t index) {
  const model::TensorInfo& info = source.table()[index];
  const model::StoredTensor stored = source.reader().stored(index);
  if (!source.adapters()->find(index)) return {stored.bytes().begin(), stored.bytes().end()};
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

/// A tensor of the file of which something was trained.
std::vector<std::byte> trained_bytes(const ExecContext& ctx, const ExportSource& source,
                                     const std::vector<std::size_t>& parts) {
  std::vector<std::byte> all;
  for (const std::size_t part : parts) {
    const std::vector<std::byte> bytes = matrix_bytes(ctx, source, part);
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  return all;
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
  if (!source.adapters()) return true;
  for (std::size_t i = 0; i < source.table().size(); ++i) {
    if (!source.adapters()->find(i)) continue;
    const quant::Codec* codec = source.reader().stored(i).encoded.codec;
    if (!codec || !source.has_trained_codes(i, *codec)) return false;
  }
  return true;
}

}  // namespace temper::exporter
