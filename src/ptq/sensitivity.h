// What each number format costs in each tensor, in nats of KL divergence from the 16-bit model.
//
// Measuring every pair of tensor and format would take thousands of passes. Here the error that a format makes in a tensor's
// outputs is computed, tr((W - Ŵ) H (W - Ŵ)ᵀ) with H the diagonal of Σ x xᵀ over the calibration tokens, and scaled by what
// such errors cost: tensors of one kind in neighbouring layers form a group, whose divergence is measured with all of it in
// a probe format. Costs of tensors are added up; `predicted` figures of whole models are such sums, and are to be checked by
// measuring (measure_mix).
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

  std::vector<std::vector<Choice>> choices() const;
  double bits(std::uint64_t bytes) const { return 8.0 * static_cast<double>(bytes) / static_cast<double>(weights); }
};

struct SensitivityOptions {
  std::vector<const quant::Codec*> codecs;  ///< To choose from; 16-bit always is one more.
  double probe_bits = 4.5;                  ///< Groups are measured in the format nearest to this.
  int layer_groups = 4;                     ///< Neighbourhoods into which the layers are cut.
  std::int64_t sampled_rows = 512;          ///< Of each matrix, whose errors are computed.
};

/// Throws BadData where samples have no labelled tokens, BadRecipe where a tensor fits none of the formats.
Sensitivity measure_sensitivity(const ExecContext& ctx, model::BaseWeights& base, const model::ArchSpec& arch,
                                std::span<const text::Sample> samples, const SensitivityOptions& options);

/// The same, read from `cache` (JSON) if it was made of the same model, samples and options; else measured and written
/// there.
Sensitivity cached_sensitivity(const ExecContext& ctx, model::BaseWeights& base, const model::ArchSpec& arch,
                               std::span<const text::Sample> samples, const SensitivityOptions& options,
                               const std::filesystem::path& cache);

/// The divergence of a model whose tensors are in the formats given by table index (null: 16-bit) from the 16-bit one.
eval::Comparison measure_mix(const ExecContext& ctx, model::BaseWeights& base, const model::ArchSpec& arch,
                             std::span<const quant::Codec* const> codecs, std::span<const text::Sample> samples,
                             const eval::BootstrapOptions& bootstrap);

/// Formats by table index of an allocation.
std::vector<const quant::Codec*> codecs_of(const Sensitivity& sensitivity, const Allocation& allocation,
                                           std::size_t table_size);

/// GGUF's formats that encode, from about 2.6 to 8.5 bits.
std::vector<const quant::Codec*> default_types();

}  // namespace temper::ptq
