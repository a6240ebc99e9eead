// AWQ and SmoothQuant of a whole model: the inputs of every block measured on calibration data, factors found and folded in.
#pragma once

#include <functional>

#include "model/transformer.h"
#include "ptq/calibration.h"
#include "ptq/fold.h"

namespace temper::ptq {

struct ScaleOptions {
  /// Formats of the projections that AWQ is to serve; null where one stays 16-bit. Empty: SmoothQuant, which needs none.
  std::function<const quant::Codec*(const model::TensorInfo&)> codec;
  double alpha = 0.5;            ///< SmoothQuant's migration strength.
  std::size_t memory_limit = 0;  ///< Bytes of hidden states in memory; more lie in a file.
};

/// Folds factors into `folded` for the four inputs of each block, measured on `measured`, the same model in 16 bits as it
/// was before: AWQ if options.codec is given, else SmoothQuant. Blocks one by one, so that one block's moments are held at a
/// time.
void scale_inputs(const ExecContext& ctx, FoldedModel& folded, model::Transformer& measured, const Calibration& calibration,
                  const ScaleOptions& options);

}  // namespace temper::ptq
