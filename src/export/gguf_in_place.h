// A quantized GGUF that was fine-tuned, written back in its own layout.
#pragma once

#include <filesystem>

#include "export/source.h"

namespace temper::exporter {

/// Name of the target after "gguf:".
inline constexpr std::string_view kSameTarget = "same";

/// Writes the source's GGUF file anew: its metadata, tensors in its order and types. Those with an adapter hold the codes
/// that they were trained with, if these are in their type, else the merged weights fit and rounded to it; all others have
/// the bytes that they had. The parts of a split file become one. Throws Unsupported where the source is no GGUF, or an
/// adapted tensor is of a type that temper does not write.
void write_gguf_in_place(const ExecContext& ctx, const ExportSource& source, const std::filesystem::path& path);

/// Reopens it and compares metadata and every tensor's bytes. Throws VerifyFailed naming what differs.
void verify_gguf_in_place(const ExecContext& ctx, const ExportSource& source, const std::filesystem::path& path);

/// True if every adapted tensor has the codes that it was trained with.
bool in_place_as_trained(const ExportSource& source);

}  // namespace temper::exporter
