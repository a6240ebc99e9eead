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

/// The codec of a tensor by the rule of its kind, whether or not its rows are a multiple of the format's block; nullptr for
/// norms. `importance`: whether the file is made with an importance matrix, which changes some choices.
const Codec* mix_codec(const LlamaMix& mix, const TensorPlace& place, bool importance);

}  // namespace temper::quant
