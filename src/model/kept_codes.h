// Encoded tensors whose parameters are no function of base and adapter: fit some steps ago, learnt, or taken from a file.
// They are state: a run's folder keeps them, and whoever opens the run uses them.
#pragma once

#include <filesystem>
#include <span>
#include <vector>

#include "model/weights.h"

namespace temper::model {

/// codes.safetensors of a run's folder.
inline constexpr const char* kKeptCodesName = "codes.safetensors";

/// Writes encoded tensors, by index in the table, as U8 [rows, bytes of a row] in HF row order under their HF names;
/// metadata `scheme` and `codecs` (a JSON object of names).
void save_kept_codes(const EncodedWeights& weights, std::span<const std::size_t> tensors, const std::filesystem::path& path);

/// Copies them into `weights` and returns what is then left for EncodedWeights::encode, by index in the table: Leave for
/// what was read, Fit for the others. Throws BadFile naming file and tensor where a name, codec or size does not fit the
/// scheme.
std::vector<Encoding> restore_kept_codes(const ExecContext& ctx, const std::filesystem::path& path, EncodedWeights& weights);

/// Copies the codes and parameters of every tensor that the base's file holds in the scheme's own format. Returns the
/// tensors' indices in the table.
std::vector<std::size_t> take_stored_codes(const ExecContext& ctx, const CheckpointReader& reader, EncodedWeights& weights);

}  // namespace temper::model
