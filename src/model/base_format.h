// A base model whose frozen matrices are held in number formats (QLoRA; Dettmers et al. 2023): in those of its file, or
// quantized when it is opened.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "model/checkpoint_reader.h"
#include "tensor/exec_context.h"

namespace temper::model {

/// The format "as the file has it".
inline constexpr std::string_view kStoredFormat = "stored";

/// Opens a checkpoint and, unless `format` is kStoredFormat, rounds each matrix that the scheme of that name (quant::scheme)
/// selects to nearest, one tensor at a time; what was read of the file for that is let go. arch().dtype stays that of the
/// file. Throws BadRecipe for a scheme that rounds activations, one whose groups do not divide a row, and where the file
/// holds such a matrix in a number format already.
CheckpointReader open_base(const ExecContext& ctx, const std::filesystem::path& path, std::string_view format);

/// How far a base in number formats is from the matrices that it was made of: sqrt(Σ (w' - w)² / Σ w²) over all of them.
/// `original` is the same model as its file has it. 0 where nothing differs.
double relative_error(const CheckpointReader& base, const CheckpointReader& original);

/// True if some projection is held in a number format.
bool is_quantized(const CheckpointReader& reader);

}  // namespace temper::model
