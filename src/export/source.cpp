#include "export/source.h"

#include <cstring>

#include "quant/overflow.h"

namespace temper::exporter {

TensorView ExportSource::replacement(std::size_t index) const {
  return trained_ && trained_->base().replaced(index) ? trained_->base().tensor(index) : TensorView();
}

Tensor ExportSource::merged(const ExecContext& ctx, std::size_t index) const {
  if (const TensorView replaced = replacement(index)) {
    Tensor copy(replaced.dtype, replaced.shape);
    ops::convert(ctx, replaced, copy);
    return copy;
  }
  Tensor base(arch().dtype, table()[index].shape);
  reader_.read(index, base);
  const model::Adapters::Entry* entry = adapters_ ? adapters_->find(index) : nullptr;
  if (!entry) return base;
  Tensor out(arch().dtype, table()[index].shape);
  ops::merge_lora(ctx, base, adapters_->lora(*entry), out);
  return out;
}

TensorView ExportSource::mapped(std::size_t index) const {
  const model::StoredTensor stored = reader_.stored(index);
  const bool adapted = adapters_ && adapters_->find(index);
  if (replacement(index)) return {};
  return stored.as_is(arch().dtype) && !adapted ? stored.plain : TensorView();
}

quant::EncodedView ExportSource::trained_codes(std::size_t index, const quant::Codec& codec) const {
  const quant::EncodedView codes = trained_ ? trained_->encoded(index) : quant::EncodedView();
  return codes.codec == &codec ? codes : quant::EncodedView();
}

bool ExportSource::rows_apart(std::size_t index, const quant::Codec& codec) const {
  return !codec.joins_rows() && (trained_codes(index, codec).codec || mapped(index));
}

Tensor ExportSource::norm(std::size_t index) const {
  Tensor out(DType::F32, table()[index].shape);
  if (const TensorView replaced = replacement(index))
    std::memcpy(out->data, replaced.data, out->bytes());
  else
    reader_.read(index, out);
  return out;
}

std::vector<std::byte> ExportSource::encoded(const ExecContext& ctx, std::size_t index, const quant::Codec& codec,
                                             std::int64_t begin, std::int64_t end) const {
  if (const quant::EncodedView codes = trained_codes(index, codec); codes.codec) {
    const std::span<const std::byte> rows = codes.row_range(begin, end);
    return {rows.begin(), rows.end()};
  }
  const TensorView view = mapped(index);
  const Tensor copy = view ? Tensor() : merged(ctx, index);
  return rounded(ctx, (view ? view : copy.view()).slice_rows(begin, end), codec, table()[index].hf_name, begin);
}

std::vector<std::byte> ExportSource::encoded(const ExecContext& ctx, std::span<const std::size_t> parts,
                                             const quant::Codec& codec) const {
  const model::TensorInfo& first = table()[parts.front()];
  if (parts.size() > 1 && codec.joins_rows() && !has_trained_codes(parts.front(), codec)) {
    Tensor whole(arch().dtype, first.stored_shape());
    for (const std::size_t part : parts) {
      const Tensor rows = merged(ctx, part);
      std::memcpy(whole->slice_rows(table()[part].fused->first_row, whole->rows()).data, rows->data, rows->bytes());
    }
    return rounded(ctx, whole, codec, first.stored_hf_name(), 0);
  }
  std::vector<std::byte> bytes;
  for (const std::size_t part : parts) {
    const std::vector<std::byte> own = encoded(ctx, part, codec, 0, table()[part].shape[0]);
    bytes.insert(bytes.end(), own.begin(), own.end());
  }
  return bytes;
}

/// `first_row`: of the tensor, in errors.
std::vector<std::byte> ExportSource::rounded(const ExecContext& ctx, const TensorView& rows, const quant::Codec& codec,
                                             std::string_view name, std::int64_t first_row) const {
  std::vector<std::byte> bytes(static_cast<std::size_t>(rows.rows()) * codec.row_bytes(rows.cols()));
  ops::merge_and_encode(ctx, rows, nullptr, arch().dtype, codec, bytes, nullptr);
  quant::require_no_overflow({&codec, rows.rows(), rows.cols(), bytes}, name, first_row);
  return bytes;
}

}  // namespace temper::exporter
