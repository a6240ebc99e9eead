// Hugging Face folders: the merged 16-bit model with config, tokenizer and chat template.
#pragma once

#include <filesystem>

#include "export/source.h"

namespace temper::exporter {

/// Writes config.json, generation_config.json, tokenizer.json, tokenizer_config.json and model.safetensors (in shards of 5
/// GB), in a form that transformers 4 and 5 read. Matrices in the checkpoint's 16-bit dtype, adapters merged; norms in that
/// dtype where it holds them exactly, else F32. `folder` is made if missing. Throws Unsupported where config.json cannot say
/// what the model is (rotary factors of unknown origin).
void write_hf(const ExecContext& ctx, const ExportSource& source, const std::filesystem::path& folder);

}  // namespace temper::exporter
