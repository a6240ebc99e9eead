// A base model whose frozen matrices are held in number formats (QLoRA; Dettmers et al. 2023): in those of its file, or
// quantized when it is opened.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "model/adapters.h"
#include "model/checkpoint_reader.h"
#include "quant/scheme.h"
#include "tensor/exec_context.h"

namespace temper::model {

/// The format "as the file has it".
inline constexpr std::string_view kStoredFormat = "stored";

/// Where a run's folder keeps the adapter that its base is rounded less.
inline constexpr const char* kStartFolder = "start";

/// Opens a checkpoint and, unless `format` is kStoredFormat, rounds each matrix that the scheme of that name (quant::scheme)
/// selects to nearest, one tensor at a time; what was read of the file for that is let go. arch().dtype stays that of the
/// file. Throws as base_codecs.
/// `less`, unless empty, is a folder of adapters as peft writes it (model/peft.h): a matrix that has one is rounded as
/// W − s·B·A, in f32 and in the order of ops::merge_lora, so that the same files give the same bits.
CheckpointReader open_base(const ExecContext& ctx, const std::filesystem::path& path, std::string_view format,
                           const std::filesystem::path& less = {});

/// What `scheme` rounds each matrix of a base to, by index in the table; null: it stays as it is. Throws BadRecipe for a
/// scheme that rounds activations, one whose groups do not divide a row, and where the file holds such a matrix in a number
/// format already.
std::vector<const quant::Codec*> base_codecs(const CheckpointReader& reader, const quant::Scheme& scheme);

/// A plain matrix rounded to nearest as open_base does, less an adapter unless that is null.
HeldCodes round_base(const ExecContext& ctx, const CheckpointReader& reader, std::size_t index, const quant::Codec& codec,
                     const Adapters::Entry* less);

/// XXH3-64, in hex, of the codes of all matrices in number formats, in table order.
std::string base_checksum(const CheckpointReader& base);

/// How far a base in number formats is from the matrices that it was made of: sqrt(Σ (w' - w)² / Σ w²) over all of them.
/// `original` is the same model as its file has it. 0 where nothing differs.
double relative_error(const CheckpointReader& base, const CheckpointReader& original);

/// True if some projection is held in a number format.
bool is_quantized(const CheckpointReader& reader);

}  // namespace temper::model
