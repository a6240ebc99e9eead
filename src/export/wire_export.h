// Quantized Hugging Face folders: a scheme's codes in the layout of a wire (src/wires).
#pragma once

#include <filesystem>

#include "export/source.h"
#include "model/targets.h"
#include "wires/wire.h"

namespace temper::exporter {

/// Writes the folder: what write_hf writes, but with matrices in the scheme's formats, laid out as the wire does, and with
/// its quantization_config. One tensor at a time; `folder` is made if missing.
void write_wire(const ExecContext& ctx, const ExportSource& source, const wires::Wire& wire, const quant::Scheme& scheme,
                const std::filesystem::path& folder);

/// Reopens the folder and compares parameters and codes of every tensor with the source's, bit for bit, and what activations
/// are rounded to. Throws VerifyFailed naming the first tensor that differs.
void verify_wire(const ExecContext& ctx, const ExportSource& source, const quant::Scheme& scheme,
                 const std::filesystem::path& folder);

}  // namespace temper::exporter
