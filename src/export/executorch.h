// ExecuTorch programs (.pte): made by the package's own exporter from a folder in torchao's layout.
#pragma once

#include <filesystem>

namespace temper::exporter {

/// Throws Unsupported, with the command that installs it, unless the Python of TEMPER_PYTHON (else python3) has the package.
void require_executorch();

/// Runs python/temper_executorch.py, which is part of this program, on a folder that write_wire wrote: weights stay as they
/// are. Throws IoError with the end of what the exporter said.
void make_executorch(const std::filesystem::path& folder, const std::filesystem::path& program);

}  // namespace temper::exporter
