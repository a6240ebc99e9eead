// `temper export` and `temper quantize`: write a target, reopen it, and compare it with what that target promises.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "eval/compare.h"
#include "export/gguf_export.h"
#include "export/source.h"
#include "recipe/recipe.h"

namespace temper::exporter {

/// What the export of a target was found to be.
struct ExportReport {
  std::string path, target;
  std::uint64_t file_bytes = 0;
  double bits_per_weight = 0;  ///< Over every tensor of the file.
  bool as_trained = false;     ///< The target carries the trained scheme (or, of a 16-bit run, the adapter itself).
  std::string promise;         ///< What was checked strictly: "parameters and codes equal, …".
  std::optional<eval::Comparison>
      comparison;  ///< File against the training graph; none for an adapter or a plain quantization.
};

nlohmann::ordered_json to_json(const ExportReport& report);
std::string to_text(const ExportReport& report);

/// Exports recipe.model (a run or a model, in recipe.quant.scheme where that is not "none") to recipe.exporting.to, at
/// recipe.out. The file is written aside, reopened and
/// verified, and only then takes its name:
///   strictly, if the target carries the scheme that was trained: parameters and codes equal bit for bit, logits' KL
///   divergence from the training graph at most kStrictKld per token, token ids of rendered chats equal; VerifyFailed
///   otherwise; otherwise parameters equal what the target's codec makes of the merged 16-bit weights, token ids equal, and
///   the divergence from the training graph is measured and reported.
/// Throws BadRecipe for an unknown target or a scheme that no wire carries (listing those that can).
ExportReport export_model(const ExecContext& ctx, const recipe::Recipe& recipe);

/// Codes of recipe.quant.scheme that some method of post-training quantization made, in memory.
struct MadeCodes {
  eval::LoadedModel& model;
  std::optional<ImportanceNote> importance;  ///< Where an importance matrix chose the formats.
  std::string how;                           ///< "rounded to nearest", …
};

/// Post-training quantization of a model with recipe.quant.scheme to quantize_target(recipe), at recipe.out: of the codes
/// given, or, without any, rounded to nearest, streaming one tensor at a time. Throws BadRecipe, before any work, where the
/// target cannot carry the scheme.
ExportReport quantize(const ExecContext& ctx, const recipe::Recipe& recipe, const MadeCodes* codes = nullptr);
/// Where it writes: to recipe.exporting.to (a GGUF type or a wire), else to the first target that carries the scheme. Throws
/// BadRecipe where there is none.
std::string quantize_target(const recipe::Recipe& recipe);

/// The same with a codec for each tensor, by table index (null: BF16). Throws Unsupported for one that is no type of GGUF.
ExportReport quantize_mix(const ExecContext& ctx, const recipe::Recipe& recipe, std::vector<const quant::Codec*> codecs);
/// Writes weights that were changed so that the model computes the same (ptq/fold.h) as a Hugging Face folder at `path`,
/// reopens it, compares every tensor bit for bit and token ids, and measures how far its answers are from those of
/// `original`, from which it differs by the rounding of its 16-bit weights.
ExportReport write_transformed(const ExecContext& ctx, const model::CheckpointReader& changed, eval::LoadedModel& original,
                               const std::filesystem::path& path);

/// Largest mean divergence, nats a token, between a file and the graph it was trained as. Their operands are equal bit for
/// bit, so only the f32 evaluation of KL itself may differ from zero.
inline constexpr double kStrictKld = 1e-6;

}  // namespace temper::exporter
