#include "export/hf_export.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/atomic_file.h"
#include "base/progress.h"
#include "files/json.h"
#include "files/safetensors.h"

namespace temper::exporter {
namespace {

namespace fs = std::filesystem;
using files::Json;

/// GGUF stores llama 3's rotary scaling as factors; config.json wants the parameters that made them. Those that models were
/// released with are tried.
model::RopeSpec rope_for_config(const model::ArchSpec& arch) {
  if (arch.rope.factors.empty()) return arch.rope;
  for (const double factor : {8.0, 32.0, 16.0, 4.0}) {
    model::RopeSpec guess;
    guess.kind = model::RopeKind::Llama3;
    guess.theta = arch.rope.theta;
    guess.factor = factor;
    const std::vector<float> made = model::rope_factors(guess, arch.rotated);
    const bool same = std::equal(made.begin(), made.end(), arch.rope.factors.begin(), arch.rope.factors.end(),
                                 [](float a, float b) { return std::abs(a - b) <= 1e-5f * std::abs(b); });
    if (same) return guess;
  }
  throw Unsupported(
      "rope_freqs.weight holds factors that no known llama3 rope_scaling gives; config.json cannot describe them");
}

Json config_json(const ExportSource& source) {
  model::ArchSpec arch = source.arch();
  arch.rope = rope_for_config(arch);
  const Json ours = model::hf_config(arch);
  if (!fs::is_directory(source.reader().path())) return ours;
  Json config = files::read_json(source.reader().path() / "config.json");  // keeps what we do not model
  config.update(ours);
  config.erase("quantization_config");  // weights are decoded
  return config;
}

Json generation_config(const ExportSource& source) {
  Json config = {{"do_sample", false}};
  const text::Tokenizer& tokenizer = source.tokenizer();
  if (tokenizer.bos_id()) config["bos_token_id"] = *tokenizer.bos_id();
  if (tokenizer.pad_id()) config["pad_token_id"] = *tokenizer.pad_id();
  if (!tokenizer.eog_ids().empty()) config["eos_token_id"] = tokenizer.eog_ids();
  return config;
}

/// A vector that the folder stores less an offset: as it was there, or the difference in F32.
Tensor without_offset(const ExportSource& source, std::size_t index) {
  const model::StoredTensor stored = source.reader().stored(index);
  const float offset = source.table()[index].hf_offset;
  if (stored.offset == offset) {
    Tensor out(stored.plain.dtype, stored.plain.shape);
    std::memcpy(out->data, stored.plain.data, stored.plain.bytes());
    return out;
  }
  Tensor out = source.norm(index);
  for (float& x : out.span<float>()) x -= offset;
  return out;
}

/// A tensor as the folder stores it.
Tensor stored_form(const ExecContext& ctx, const ExportSource& source, std::size_t index) {
  const model::TensorInfo& info = source.table()[index];
  if (info.role != quant::Role::Norm) return source.merged(ctx, index);
  if (info.hf_offset != 0) return without_offset(source, index);
  const Tensor norm = source.norm(index);
  const DType dtype = source.arch().dtype;
  Tensor narrow(dtype, norm->shape), back(DType::F32, norm->shape);
  source.reader().read(index, narrow);
  if (dtype == DType::F16 || dtype == DType::BF16)
    ops::convert(ctx, narrow, back);
  else
    return norm;
  const auto a = norm.span<const float>(), b = back.span<const float>();
  return std::equal(a.begin(), a.end(), b.begin()) ? narrow : norm;
}

}  // namespace

void write_hf(const ExecContext& ctx, const ExportSource& source, const fs::path& folder) {
  HfFolder(ctx, source, folder).write({});
}

void HfFolder::write(const Pack& pack) const {
  Json config = config_json(source_);  // may refuse: before anything is written
  if (!quantization_config.is_null()) config["quantization_config"] = quantization_config;
  const model::TensorTable& table = source_.table();
  const std::size_t count = table.size() + packed.count(table.size());
  if (count > table.size()) config["tie_word_embeddings"] = false;
  fs::create_directories(folder_);
  std::vector<files::SafetensorsEntry> entries;
  for (std::size_t i = 0; i < count; ++i) {
    if (const auto found = packed.find(i); found != packed.end()) {
      entries.insert(entries.end(), found->second.begin(), found->second.end());
      continue;
    }
    const model::TensorInfo& info = table[i];
    if (info.fused && info.fused->first_row > 0) continue;  // its rows follow those of the first of them
    const DType dtype = info.role == quant::Role::Norm ? stored_form(ctx_, source_, i)->dtype : source_.arch().dtype;
    entries.push_back({info.stored_hf_name(), dtype, info.stored_shape()});
  }
  files::ShardedSafetensorsWriter writer(folder_, entries, metadata);
  Progress progress(fmt::format("write {}", folder_.filename().string()), static_cast<std::int64_t>(count));
  for (std::size_t i = 0; i < count; ++i) {
    if (packed.contains(i)) {
      pack(i, [&](std::span<const std::byte> bytes) { writer.write(bytes); });
    } else {
      const Tensor tensor = stored_form(ctx_, source_, i);
      writer.write({static_cast<const std::byte*>(tensor->data), tensor->bytes()});
    }
    progress.update(static_cast<std::int64_t>(i) + 1);
  }
  writer.commit();
  write_file(folder_ / "tokenizer.json", source_.tokenizer().to_hf_json());
  if (const std::string& model = source_.tokenizer().sentencepiece_model(); !model.empty())
    write_file(folder_ / "tokenizer.model", model);
  write_file(folder_ / "tokenizer_config.json", source_.tokenizer().to_hf_config_json());
  write_file(folder_ / "generation_config.json", generation_config(source_).dump(2) + "\n");
  write_file(folder_ / "config.json", config.dump(2) + "\n");
}

}  // namespace temper::exporter
