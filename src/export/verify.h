// Checks of an exported file against what it was made from.
#pragma once

#include <filesystem>
#include <vector>

#include "eval/compare.h"
#include "eval/loaded_model.h"
#include "export/gguf_export.h"
#include "export/source.h"

namespace temper::exporter {

/// Reopens a GGUF and compares every tensor with the source's: bytes of codes and parameters, or of plain values. Throws
/// VerifyFailed naming the first tensor that differs.
void verify_gguf_tensors(const ExecContext& ctx, const ExportSource& source, const GgufTarget& target,
                         const std::filesystem::path& path);

/// Reopens a GGUF and compares every tensor's bytes with what was written, by checksum. Throws VerifyFailed naming the
/// first tensor that differs, Unsupported where GGUF has no key for what this model computes (as does verify_gguf_tensors).
void verify_gguf_bytes(const ExportSource& source, std::span<const WrittenPiece> written, const std::filesystem::path& path);

/// Throws VerifyFailed, naming file, tensor and the first byte that differs, unless the bytes are equal.
void verify_bytes(std::span<const std::byte> expected, std::span<const std::byte> found, const std::filesystem::path& path,
                  std::string_view tensor);
/// Compares a plain tensor of a Hugging Face folder with the source's merged one.
void verify_plain(const ExecContext& ctx, const ExportSource& source, const model::CheckpointReader& reader,
                  std::size_t index, const std::filesystem::path& folder);

/// Reopens a Hugging Face folder and compares every tensor, bit for bit. Throws VerifyFailed.
void verify_hf_tensors(const ExecContext& ctx, const ExportSource& source, const std::filesystem::path& folder);

/// Reopens an adapter folder and compares masters, also those of `beside` (by table index), and configuration. Throws
/// VerifyFailed.
void verify_adapter(const model::Adapters& adapters, const model::TensorTable& table, const std::vector<Tensor>& beside,
                    const std::filesystem::path& folder);

/// Compares the masters and the scale of adapters read from `path` with those that were written. Throws VerifyFailed.
void require_same_adapters(const model::Adapters& expected, const model::Adapters& found, const std::filesystem::path& path);

/// Conversations that every verification renders with both templates and tokenizes with both tokenizers. Throws VerifyFailed
/// where ids differ. A model without a template is compared on their plain text.
void verify_token_ids(const text::Tokenizer& expected, const text::Tokenizer& found, const std::filesystem::path& path);

/// The same conversations, for measuring divergence: loss on the answers; cut to what the model has positions for, and if no
/// answer is left, loss on everything.
std::vector<text::Sample> probe_samples(const text::Tokenizer& tokenizer, std::int64_t max_positions);

}  // namespace temper::exporter
