// Which weights the forward pass of a step sees: 16-bit with unmerged adapters, or the codes of merge, fit and round.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "model/adapters.h"
#include "model/transformer.h"
#include "model/weights.h"
#include "quant/scheme.h"
#include "recipe/recipe.h"

namespace temper::train {

/// Shares over all codes of the projections; zero while no codes are in use.
struct CodeShares {
  double changed = 0;    ///< Codes that differ from those of the step before.
  double saturated = 0;  ///< Codes at an end of the range for a value outside of it.
};

/// Makes the weights of each step once, however many micro-batches and evaluations follow. Without a scheme, or before
/// `start_step`, the base is used as it is and the adapters are applied unmerged; from then on the weights are
/// decode(round(merged)), straight-through.
class QatController {
 public:
  /// `scheme` null: no quantization. All references must outlive this. Throws BadRecipe if a group does not divide a row.
  QatController(const ExecContext& ctx, model::BaseWeights& base, model::Adapters& adapters, const model::ArchSpec& arch,
                const quant::Scheme* scheme, recipe::MergeDtype merge, std::int64_t start_step, model::Recompute recompute);

  /// The network of optimizer step `step` (from 0), from the adapters as they are now. A second call for the same step does
  /// nothing. Throws Diverged if a merged weight is not finite.
  model::Transformer& prepare(const ExecContext& ctx, std::int64_t step);

  bool active(std::int64_t step) const { return encoded_ != nullptr && step >= start_step_; }
  const CodeShares& shares() const { return shares_; }  ///< Of the prepared step.
  void restore(const CodeShares& shares) { shares_ = shares; }
  /// XXH3-64 of the codes of the prepared step, as eval::codes_checksum; empty where it uses none.
  std::string checksum() const;

 private:
  void encode(const ExecContext& ctx);

  model::Adapters& adapters_;
  std::int64_t start_step_;
  std::unique_ptr<model::EncodedWeights> encoded_;
  model::Transformer unmerged_;
  std::optional<model::Transformer> merged_;
  CodeShares shares_;
  std::int64_t prepared_ = -1;
  bool encoded_before_ = false;
};

}  // namespace temper::train
