// LoRA adapters as GGUF, which llama.cpp applies to a base model when it is loaded (--lora): general.type "adapter",
// adapter.type "lora", adapter.lora.alpha, and of each adapted matrix W two tensors in F32, "<W>.lora_a" [r, in] and
// "<W>.lora_b" [out, r], rows of the latter in GGUF's order. llama.cpp adds alpha / r · B·A·x to W·x.
#pragma once

#include <filesystem>

#include "files/gguf.h"
#include "model/adapters.h"

namespace temper::exporter {

/// Writes `adapters`. The alpha stored is scale · r, so that rank-stabilised adapters come out with the scale they were
/// trained with. `name` becomes general.name.
void write_gguf_lora(const model::Adapters& adapters, const model::TensorTable& table, const std::string& name,
                     const std::filesystem::path& path);

/// Reads such a file (F32, BF16 or F16). Throws BadFile where a tensor is missing, unknown or of another shape than the
/// table implies (an adapter for another base), Unsupported where adapters of one file differ in rank or it is no llama.
model::Adapters read_gguf_lora(const model::TensorTable& table, const files::GgufFile& file);

}  // namespace temper::exporter
