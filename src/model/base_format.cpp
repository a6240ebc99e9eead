#include "model/base_format.h"

#include <cmath>
#include <optional>

#include "base/checksum.h"
#include "base/progress.h"
#include "model/peft.h"
#include "ops/ops.h"
#include "quant/overflow.h"
#include "quant/scheme.h"

namespace temper::model {

HeldCodes round_base(const ExecContext& ctx, const CheckpointReader& reader, std::size_t index, const quant::Codec& codec,
                     const Adapters::Entry* less) {
  const StoredTensor stored = reader.stored(index);
  const Shape& shape = reader.table()[index].shape;
  const DType dtype = reader.arch().dtype;
  HeldCodes codes{&codec, std::vector<std::byte>(static_cast<std::size_t>(shape[0]) * codec.row_bytes(shape[1]))};
  Tensor copy;
  if (!stored.as_is(dtype)) reader.read(index, copy = Tensor(dtype, shape));
  const TensorView plain = copy ? copy.view() : stored.plain;
  if (less) {
    const ops::LoraView lora{less->a, less->b, -less->scale};
    ops::merge_and_encode(ctx, plain, &lora, DType::F32, codec, codes.bytes, nullptr);
  } else {
    ops::merge_and_encode(ctx, plain, nullptr, dtype, codec, codes.bytes, nullptr);
  }
  quant::require_no_overflow({&codec, shape[0], shape[1], codes.bytes}, reader.table()[index].hf_name);
  return codes;
}

std::vector<const quant::Codec*> base_codecs(const CheckpointReader& reader, const quant::Scheme& scheme) {
  const TensorTable& table = reader.table();
  require_fit(table, scheme);
  std::vector<const quant::Codec*> codecs(table.size());
  for (std::size_t i = 0; i < table.size(); ++i) {
    codecs[i] = table[i].role == quant::Role::Norm ? nullptr : scheme.codec_for(table[i].place);
    if (!codecs[i]) continue;
    if (scheme.input_codec_for(table[i].place))
      throw BadRecipe("model.base_format {}: it rounds activations, too; a frozen base is weights alone (add \"/none\")",
                      scheme.name);
    if (!reader.stored(i).plain)
      throw BadRecipe("model.base_format {}: {} holds {} as {} already; leave model.base_format out to train on that",
                      scheme.name, reader.path().string(), table[i].hf_name, reader.stored(i).format);
  }
  return codecs;
}

CheckpointReader open_base(const ExecContext& ctx, const std::filesystem::path& path, std::string_view format,
                           const std::filesystem::path& less) {
  CheckpointReader reader = CheckpointReader::open(path);
  if (format == kStoredFormat) return reader;
  const quant::Scheme& scheme = quant::scheme(format);
  const TensorTable& table = reader.table();
  const std::vector<const quant::Codec*> codecs = base_codecs(reader, scheme);
  std::optional<Adapters> adapters;
  if (!less.empty()) adapters = load_peft(table, less);
  std::vector<HeldCodes> codes(table.size());
  Progress progress(fmt::format("base to {}", scheme.name), static_cast<std::int64_t>(table.size()));
  for (std::size_t i = 0; i < table.size(); ++i) {
    progress.update(static_cast<std::int64_t>(i) + 1);
    if (!codecs[i]) continue;
    codes[i] = round_base(ctx, reader, i, *codecs[i], adapters ? adapters->find(i) : nullptr);
    reader.release(i);
  }
  return CheckpointReader::with_codes(std::move(reader), std::move(codes));
}

std::string base_checksum(const CheckpointReader& base) {
  Checksum checksum;
  for (std::size_t i = 0; i < base.table().size(); ++i)
    if (const StoredTensor stored = base.stored(i); !stored.plain) checksum.add(stored.bytes());
  return checksum.hex();
}

double relative_error(const CheckpointReader& base, const CheckpointReader& original) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < base.table().size(); ++i) {
    if (base.stored(i).plain) continue;
    const Tensor held(DType::F32, base.table()[i].shape), read(DType::F32, base.table()[i].shape);
    base.read(i, held);
    original.read(i, read);
    const auto a = held.span<const float>(), b = read.span<const float>();
    for (std::size_t k = 0; k < a.size(); ++k) {
      const double d = static_cast<double>(a[k]) - static_cast<double>(b[k]);
      error += d * d;
      norm += static_cast<double>(b[k]) * static_cast<double>(b[k]);
    }
    original.release(i);
  }
  return norm > 0 ? std::sqrt(error / norm) : 0.0;
}

bool is_quantized(const CheckpointReader& reader) {
  for (std::size_t i = 0; i < reader.table().size(); ++i)
    if (reader.table()[i].role == quant::Role::Linear && !reader.stored(i).plain) return true;
  return false;
}

}  // namespace temper::model
