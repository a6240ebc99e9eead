// What each number format costs in each tensor, in nats of KL divergence from the 16-bit model: measured, tensor by tensor
// and format by format.
//
// The residual stream in front of a block is the same whatever the block's matrices are held in. So the text goes through
// the model block by block, and each matrix of a block is put into one format after another, from where only the rest of the
// model is run. Where that would take longer than is allowed, matrices of one kind in neighbouring layers are put into a
// format together, and what that costs is shared out among them by the errors that the format makes in their outputs: tr((W
// - Ŵ) H (W - Ŵ)ᵀ), H the diagonal of Σ x xᵀ over the tokens.
//
// Costs of tensors are added up; `predicted` figures of whole models are such sums, and are to be checked by measuring
// (measure_mix).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "eval/compare.h"
#include "model/weights.h"
#include "ptq/allocation.h"
#include "text/dataset.h"

namespace temper::ptq {

/// What a tensor may be held in. `codec` null: 16-bit.
struct TypeCost {
  const quant::Codec* codec = nullptr;
  Choice choice;  ///< Bytes in a file; nats a token.
};

struct TensorCosts {
  std::size_t tensor = 0;  ///< Index in the tensor table.
  std::vector<TypeCost> types;
};

struct Sensitivity {
  std::vector<TensorCosts> tensors;  ///< Every matrix.
  std::uint64_t fixed_bytes = 0;     ///< Of the other tensors.
  std::int64_t weights = 0;          ///< Elements of all tensors.
  std::int64_t tokens = 0;           ///< Labelled tokens behind each figure.
  int layer_groups = 0;  ///< Neighbourhoods of layers that were measured together; the layers: every tensor alone.
  double passes = 0;     ///< What it took, in forward passes of the whole model over the samples.
  double seconds = 0;

  std::vector<std::vector<Choice>> choices() const;
  double bits(std::uint64_t bytes) const { return 8.0 * static_cast<double>(bytes) / static_cast<double>(weights); }
};

struct SensitivityOptions {
  std::vector<const quant::Codec*> codecs;  ///< To choose from; 16-bit always is one more.
  double minutes = 0;                       ///< What may be taken, by the speed of the first pass; 0: no limit.
  std::int64_t sampled_rows = 512;          ///< Of each matrix, whose errors are computed.
};

/// Throws BadData where samples have no labelled tokens, Unsupported where weights are too large for a format.
Sensitivity measure_sensitivity(const ExecContext& ctx, model::BaseWeights& base, const model::ArchSpec& arch,
                                std::span<const text::Sample> samples, const SensitivityOptions& options);

/// The same, read from `cache` (JSON) if it was made of the same model, samples and formats, with every tensor alone or in
/// the same time; else measured and written there.
Sensitivity cached_sensitivity(const ExecContext& ctx, model::BaseWeights& base, const model::ArchSpec& arch,
                               std::span<const text::Sample> samples, const SensitivityOptions& options,
                               const std::filesystem::path& cache);

/// The divergence of a model whose tensors are in the formats given by table index (null: 16-bit) from the 16-bit one.
eval::Comparison measure_mix(const ExecContext& ctx, model::BaseWeights& base, const model::ArchSpec& arch,
                             std::span<const quant::Codec* const> codecs, std::span<const text::Sample> samples,
                             const eval::BootstrapOptions& bootstrap);

/// One format in every matrix; where it does not divide the rows, what stands in for it (quant/fallback.h), or 16-bit.
Allocation uniform(const Sensitivity& sensitivity, const model::TensorTable& table, const quant::Codec& codec);

/// Formats by table index of an allocation.
std::vector<const quant::Codec*> codecs_of(const Sensitivity& sensitivity, const Allocation& allocation,
                                           std::size_t table_size);

/// GGUF's formats that encode, from about 2.6 to 8.5 bits.
std::vector<const quant::Codec*> default_types();

}  // namespace temper::ptq
