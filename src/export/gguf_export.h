// GGUF files: BF16, F16, or a scheme whose codecs are GGUF types, with everything that llama.cpp needs to run the model.
#pragma once

#include <filesystem>
#include <string_view>

#include "export/source.h"

namespace temper::exporter {

/// What a GGUF holds its matrices in.
struct GgufTarget {
  std::string_view name;                  ///< "q4_0", "bf16", …
  std::uint32_t file_type = 0;            ///< general.file_type, as llama.cpp numbers them.
  DType plain = DType::BF16;              ///< Dtype of matrices that no codec holds.
  const quant::Scheme* scheme = nullptr;  ///< Null: all matrices plain.
};

/// The target of "bf16", "f16", "q4_0" or "q8_0". Throws BadRecipe listing these.
GgufTarget gguf_target(std::string_view name);

/// Writes the file, streaming one tensor at a time; it appears whole or not at all. Throws BadRecipe where a group does not
/// divide a row, Unsupported where a value does not fit F16 or the tokenizer has no name in GGUF.
void write_gguf(const ExecContext& ctx, const ExportSource& source, const GgufTarget& target,
                const std::filesystem::path& path);

/// Bytes of one tensor as the target stores them, rows in GGUF order.
std::vector<std::byte> gguf_bytes(const ExecContext& ctx, const ExportSource& source, const GgufTarget& target,
                                  std::size_t index);

/// Rows of a matrix between HF and GGUF order, as bytes of whole rows: `to_gguf` interleaves each head's halves.
std::vector<std::byte> to_gguf_rows(std::span<const std::byte> rows, std::int64_t count, std::int64_t heads);

}  // namespace temper::exporter
