// Which weights the forward pass of a step sees: 16-bit with unmerged adapters, or the codes of merge, fit and round.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/adapters.h"
#include "model/trained_weights.h"
#include "model/transformer.h"
#include "model/weights.h"
#include "quant/scheme.h"
#include "recipe/recipe.h"

namespace temper::train {

class LearntQuantization;

/// Shares over all codes of the projections; zero while no codes are in use.
struct CodeShares {
  double changed = 0;    ///< Codes that differ from those of the step before.
  double saturated = 0;  ///< Codes at an end of the range for a value outside of it.
};

/// What the weights of a step are made of, beside the base: each may be null. They are told when a step begins.
struct Masters {
  model::Adapters* adapters = nullptr;
  model::TrainedWeights* weights = nullptr;
};

/// Makes the weights of each step once, however many micro-batches and evaluations follow. Without a scheme, or before
/// `start_step`, the base (or what is trained of it) is used as it is and adapters are applied unmerged; from then on the
/// weights are decode(round(merged)), straight-through, the same without adapters.
class QatController {
 public:
  /// `scheme` null: no quantization. All references must outlive this. `options` says when it begins, when parameters are
  /// fit and when no more, of a run of `total_steps`. Throws BadRecipe if a group does not divide a row.
  QatController(const ExecContext& ctx, model::BaseWeights& base, const Masters& masters, const model::ArchSpec& arch,
                const quant::Scheme* scheme, const recipe::QuantOptions& options, std::int64_t total_steps,
                model::Recompute recompute);

  /// The network of optimizer step `step` (from 0), from the masters as they are now. A second call for the same step does
  /// nothing. Throws Diverged if a merged weight is not finite.
  model::Transformer& prepare(const ExecContext& ctx, std::int64_t step);

  /// The network of a step on a dry context (ops/dry_run.h): what prepare takes is taken, nothing is computed, and prepare
  /// has still to come.
  model::Transformer& dry(const ExecContext& dry, std::int64_t step);

  void set_recompute(model::Recompute recompute);

  bool active(std::int64_t step) const { return encoded_ != nullptr && step >= start_step_; }
  const CodeShares& shares() const { return shares_; }  ///< Of the prepared step.
  void restore(const CodeShares& shares) { shares_ = shares; }
  /// Tensors whose parameters are state at a step, by index in the table: those that are not fit at every step. Empty while
  /// no codes are in use.
  std::vector<std::size_t> kept(std::int64_t step) const;
  /// The bytes of these tensors of encoded() come from the base's file: step 0 uses them as they are, and their parameters
  /// stay unless quant.refit_every asks for fits. Before the first prepare.
  void taken(std::vector<std::size_t> tensors) { taken_ = std::move(tensors); }
  model::EncodedWeights* encoded() { return encoded_.get(); }  ///< Null without a scheme.
  /// Told when a step begins, and given what it learns from in backward passes; must outlive this. Before the first prepare.
  void set_learnt(LearntQuantization& learnt);
  /// The network without a scheme, from the masters as they are now.
  model::Transformer& unmerged(const ExecContext& ctx);
  /// The kept tensors' bytes have been written into encoded(), as step `step` had them: prepare(step) leaves them so.
  void restored(std::int64_t step) { restored_ = step; }
  /// "scales fit every 8 steps, fixed from step 54 on (kept for 60 of 210 tensors)"; empty where all are fit at every step.
  std::string cadence() const;
  /// XXH3-64 of the codes of the prepared step, as eval::codes_checksum; empty where it uses none.
  std::string checksum() const;

 private:
  void prepare_masters(const ExecContext& ctx);
  void encode(const ExecContext& ctx, std::int64_t step);
  /// Steps between two fits of a tensor; 0: it is never fit.
  std::int64_t every(std::size_t tensor) const;
  bool is_taken(std::size_t tensor) const { return std::ranges::find(taken_, tensor) != taken_.end(); }
  bool keeps(std::size_t tensor) const { return every(tensor) != 1 || frozen_from_ < total_steps_ || is_taken(tensor); }
  /// What is encoded at every step, by index in the table: the projections, and embedding and head where they are trained.
  std::vector<std::size_t> renewed() const;
  bool is_renewed(std::size_t tensor) const {
    return encoded_->codec(tensor) && (encoded_->table()[tensor].role == quant::Role::Linear || base_.trained(tensor));
  }
  std::vector<model::Encoding> encodings(std::int64_t step) const;

  model::BaseWeights& base_;
  Masters masters_;
  recipe::QuantOptions options_;
  std::int64_t start_step_, total_steps_;
  std::int64_t frozen_from_ = 0;  ///< First step without a fit.
  std::unique_ptr<model::EncodedWeights> encoded_;
  model::Transformer unmerged_;
  std::optional<model::Transformer> merged_;
  LearntQuantization* learnt_ = nullptr;
  CodeShares shares_;
  std::vector<std::size_t> taken_;
  std::int64_t prepared_ = -1, restored_ = -1;
  bool encoded_before_ = false;
};

}  // namespace temper::train
