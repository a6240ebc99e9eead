#include "model/kept_codes.h"

#include <algorithm>

#include "base/error.h"
#include "files/json.h"
#include "files/safetensors.h"

namespace temper::model {
namespace {

Shape shape_of(const quant::EncodedView& codes) {
  return {codes.rows, static_cast<std::int64_t>(codes.codec->row_bytes(codes.cols))};
}

std::size_t index_of(const TensorTable& table, const std::string& name, const std::string& origin) {
  for (std::size_t i = 0; i < table.size(); ++i)
    if (table[i].hf_name == name) return i;
  throw BadFile("{}: {} is no tensor of the base model; it belongs to another run", origin, name);
}

}  // namespace

void save_kept_codes(const EncodedWeights& weights, std::span<const std::size_t> tensors,
                     const std::filesystem::path& path) {
  std::vector<files::SafetensorsEntry> entries;
  files::Json codecs = files::Json::object();
  for (const std::size_t index : tensors) {
    const quant::EncodedView codes = weights.encoded(index);
    const std::string& name = weights.table()[index].hf_name;
    if (codes.codec == nullptr) throw LogicError("{} has no codes to keep", name);
    entries.push_back({name, DType::U8, shape_of(codes)});
    codecs[name] = codes.codec->name();
  }
  files::SafetensorsWriter writer(path, entries, {{"scheme", weights.scheme().name}, {"codecs", codecs.dump()}});
  for (const std::size_t index : tensors) writer.write(weights.encoded(index).bytes);
  writer.commit();
}

std::vector<Encoding> restore_kept_codes(const ExecContext& ctx, const std::filesystem::path& path,
                                         EncodedWeights& weights) {
  const files::SafetensorsFile file(path);
  const std::string& origin = file.origin();
  const auto codecs_text = file.metadata().find("codecs");
  if (codecs_text == file.metadata().end()) throw BadFile("{}: expected the tensors' codecs in its metadata", origin);
  const files::Json codecs = files::parse_json(codecs_text->second, origin);
  std::vector<Encoding> left(weights.table().size(), Encoding::Fit);
  for (const files::SafetensorsTensor& tensor : file.tensors()) {
    const std::size_t index = index_of(weights.table(), tensor.name, origin);
    const quant::EncodedView codes = weights.encoded(index);
    const std::string& codec = files::require_string(codecs, tensor.name, origin);
    const std::string_view expected = codes.codec ? codes.codec->name() : "16-bit";
    if (codec != expected)
      throw BadFile("{}: {}: expected {}, found {}; the scheme has changed since", origin, tensor.name, expected, codec);
    if (tensor.dtype != DType::U8 || tensor.shape != shape_of(codes))
      throw BadFile("{}: {}: expected U8 {}, found {} {}", origin, tensor.name, shape_of(codes).str(),
                    dtype_name(tensor.dtype), tensor.shape.str());
    std::ranges::copy(tensor.data, weights.encoded_bytes(index).begin());
    weights.bytes_written(ctx, index);
    left[index] = Encoding::Leave;
  }
  return left;
}

std::vector<std::size_t> take_stored_codes(const ExecContext& ctx, const CheckpointReader& reader, EncodedWeights& weights) {
  std::vector<std::size_t> taken;
  for (std::size_t index = 0; index < weights.table().size(); ++index) {
    const quant::EncodedView codes = weights.encoded(index);
    const StoredTensor stored = reader.stored(index);
    if (codes.codec == nullptr || stored.plain || stored.encoded.codec != codes.codec) continue;
    const std::span<std::byte> bytes = weights.encoded_bytes(index);
    const std::size_t row = codes.codec->row_bytes(codes.cols);
    for (std::int64_t r = 0; r < codes.rows; ++r) {
      const std::int64_t from = gguf_row(r, codes.rows, stored.permuted_heads);
      std::ranges::copy(stored.encoded.row_range(from, from + 1), bytes.begin() + r * static_cast<std::ptrdiff_t>(row));
    }
    weights.bytes_written(ctx, index);
    taken.push_back(index);
  }
  return taken;
}

}  // namespace temper::model
