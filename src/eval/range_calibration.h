// Static ranges of activations from what a model sees: extremes, percentiles, or the smallest squared error.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "eval/score.h"
#include "model/static_ranges.h"
#include "recipe/recipe.h"

namespace temper::eval {

/// The ends of a range; 0 is held, too.
struct RangeEnds {
  float low = 0, high = 0;
};

/// Counts of values, each rounded to bf16 (16-bit operands are counted as they are), with the extremes as they were. Counts
/// do not depend on the order of values.
class ValueCounts {
 public:
  void add(const TensorView& x);  ///< F32 or BF16; values that are not finite are left out.
  std::int64_t count() const { return count_; }
  RangeEnds extremes() const { return extremes_; }
  /// Nearest rank, of the magnitudes (then both ends are as large) or of the values: what lies outside is at most (100 −
  /// percentile) % at either end.
  RangeEnds percentile(double percentile, bool magnitudes) const;
  /// Of the extremes times 1.00, 0.98 … 0.20, those whose range rounds the values with the smallest Σ (x̂ − x)²; the first of
  /// equals.
  RangeEnds smallest_error(const quant::Codec& codec, DType scales) const;

 private:
  std::vector<std::uint64_t> counts_ = std::vector<std::uint64_t>(1 << 16);  // by bf16's bits
  std::int64_t count_ = 0;
  RangeEnds extremes_;
};

/// Runs the batches through `model`, and returns the ends of every site's range, in order. `model`'s own rounding of
/// activations stays as it is. Throws Interrupted on Ctrl-C.
std::vector<RangeEnds> calibrate_ranges(const ExecContext& ctx, model::Transformer& model,
                                        std::span<const model::RangeSite> sites, std::span<const ModelBatch> batches,
                                        const recipe::QuantOptions& options, DType scales);

}  // namespace temper::eval
