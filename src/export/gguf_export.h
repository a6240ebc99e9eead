// GGUF files: BF16, F16, or a scheme whose codecs are GGUF types, with everything that llama.cpp needs to run the model.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "export/source.h"

namespace temper::exporter {

/// What llama-quantize notes of the importance matrix that it was given; empty or 0: left out.
struct ImportanceNote {
  std::string file, dataset;
  std::int64_t entries = 0, chunks = 0;
};

/// What a GGUF holds its matrices in.
struct GgufTarget {
  std::string_view name;                         ///< "q4_0", "bf16", …
  std::uint32_t file_type = 0;                   ///< general.file_type, as llama.cpp numbers them.
  DType plain = DType::BF16;                     ///< Dtype of matrices that no codec holds.
  const quant::Scheme* scheme = nullptr;         ///< Null: all matrices plain, but for `codecs`.
  std::vector<const quant::Codec*> codecs = {};  ///< By tensor, in place of a scheme; null: plain. Empty: none.
  /// Quantized with an importance matrix, which a mix's choice of formats depends on.
  std::optional<ImportanceNote> importance = std::nullopt;
};

/// The target of "bf16", "f16" or one of llama.cpp's file types ("q4_0", "q4_k_m"). Throws BadRecipe listing these.
GgufTarget gguf_target(std::string_view name);

/// A target with a codec for each tensor (by table index; null: BF16), called after the one that holds most weights.
GgufTarget mixed_target(const model::TensorTable& table, std::vector<const quant::Codec*> codecs);

/// What was written of a tensor, from `offset` on.
struct WrittenPiece {
  std::size_t tensor, offset, size;
  std::string checksum;
};

struct WrittenGguf {
  std::filesystem::path path;  ///< The file, or the first of its parts.
  std::vector<WrittenPiece> pieces;
};

/// Writes the file, streaming a few rows at a time; it appears whole or not at all. With `split_bytes`, in parts of so many
/// bytes of tensors (files/gguf_split.h). Throws BadRecipe where a group does not divide a row, Unsupported where a value
/// does not fit F16 or the tokenizer has no name in GGUF.
WrittenGguf write_gguf(const ExecContext& ctx, const ExportSource& source, const GgufTarget& target,
                       const std::filesystem::path& path, std::uint64_t split_bytes = 0);

/// Takes some bytes of a tensor, as it lies in the file, from `offset` on.
using GgufSink = std::function<void(std::size_t tensor, std::size_t offset, std::span<const std::byte> bytes)>;

/// Makes every tensor as the target stores it, rows in GGUF order, and hands it to `take` piece by piece: in any order, and
/// from every thread at once.
void make_gguf_tensors(const ExecContext& ctx, const ExportSource& source, const GgufTarget& target, std::string_view what,
                       const GgufSink& take);

/// Rows of a matrix between HF and GGUF order, as bytes of whole rows: `to_gguf` interleaves each head's halves.
std::vector<std::byte> to_gguf_rows(std::span<const std::byte> rows, std::int64_t count, std::int64_t heads);

}  // namespace temper::exporter
