// llama.cpp's file types: which GGUF type llama-quantize gives to each tensor of a model of the llama architecture.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "quant/scheme.h"

namespace temper::quant {

/// A file type of llama-quantize (llama.h, enum llama_ftype; rules: llama-quant.cpp, 2026).
struct LlamaMix {
  std::string_view name;    ///< "q4_k_m"
  std::uint32_t file_type;  ///< general.file_type
  std::string_view base;    ///< Codec of a tensor that no rule names.
};

/// Every file type that temper has the formats of.
std::span<const LlamaMix> llama_mixes();

/// The codec of a tensor: the rule of its kind, then, where the row is no multiple of the format's block, the format that
/// llama.cpp takes instead; nullptr where even blocks of 32 do not divide it (llama.cpp then stores f16) and for norms.
/// `importance`: whether the file is made with an importance matrix, which changes some choices.
const Codec* mix_codec(const LlamaMix& mix, const TensorPlace& place, bool importance);

/// What llama.cpp takes instead of a format of superblocks where rows are no multiple of 256 (q4_k: q5_0); other formats are
/// returned as they are.
const Codec* llama_fallback(const Codec& codec);

}  // namespace temper::quant
