#include "export/source.h"

namespace temper::exporter {

Tensor ExportSource::merged(const ExecContext& ctx, std::size_t index) const {
  Tensor base(arch().dtype, table()[index].shape);
  reader_.read(index, base);
  const model::Adapters::Entry* entry = adapters_ ? adapters_->find(index) : nullptr;
  if (!entry) return base;
  Tensor out(arch().dtype, table()[index].shape);
  ops::merge_lora(ctx, base, adapters_->lora(*entry), out);
  return out;
}

Tensor ExportSource::norm(std::size_t index) const {
  Tensor out(DType::F32, table()[index].shape);
  reader_.read(index, out);
  return out;
}

std::vector<std::byte> ExportSource::encoded(const ExecContext& ctx, std::size_t index, const quant::Codec& codec) const {
  if (trained_) {
    const quant::EncodedView codes = trained_->encoded(index);
    if (codes.codec == &codec) return {codes.bytes.begin(), codes.bytes.end()};
  }
  const Shape& shape = table()[index].shape;
  std::vector<std::byte> bytes(static_cast<std::size_t>(shape[0]) * codec.row_bytes(shape[1]));
  ops::merge_and_encode(ctx, merged(ctx, index), nullptr, arch().dtype, codec, bytes, nullptr);
  return bytes;
}

}  // namespace temper::exporter
