// Hugging Face folders: the merged 16-bit model with config, tokenizer and chat template.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "export/source.h"
#include "files/safetensors.h"

namespace temper::exporter {

/// Writes config.json, generation_config.json, tokenizer.json, tokenizer_config.json and model.safetensors (in shards of 5
/// GB), in a form that transformers 4 and 5 read. Matrices in the checkpoint's 16-bit dtype, adapters merged; norms in that
/// dtype where it holds them exactly, else F32. `folder` is made if missing. Throws Unsupported where config.json cannot say
/// what the model is (rotary factors of unknown origin).
void write_hf(const ExecContext& ctx, const ExportSource& source, const std::filesystem::path& folder);

/// The same with some tensors stored in parts of another making.
class HfFolder {
 public:
  HfFolder(const ExecContext& ctx, const ExportSource& source, std::filesystem::path folder)
      : ctx_(ctx), source_(source), folder_(std::move(folder)) {}

  nlohmann::json quantization_config;  ///< Of config.json; null: none.
  files::SafetensorsMetadata metadata = {{"format", "pt"}};
  /// Entries of tensors by index in the table; others are plain. One beyond the table is the head of a tied model, untied;
  /// one without entries has its rows in another's.
  std::map<std::size_t, std::vector<files::SafetensorsEntry>> packed;

  using Take = std::function<void(std::span<const std::byte>)>;
  /// Gives `take` the bytes of a packed tensor's entries, in their order.
  using Pack = std::function<void(std::size_t index, const Take& take)>;
  void write(const Pack& pack) const;

 private:
  const ExecContext& ctx_;
  const ExportSource& source_;
  std::filesystem::path folder_;
};

}  // namespace temper::exporter
