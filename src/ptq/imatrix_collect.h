// Measuring an importance matrix, as llama-imatrix does.
#pragma once

#include "ptq/calibration.h"
#include "ptq/imatrix.h"

namespace temper::ptq {

/// Sums of squares of the inputs of every projection, and of an untied head's if `head`, over a calibration set, block by
/// block (LayerRunner). Sums are f32, tokens in order, as llama.cpp's, and do not depend on the number of threads.
ImportanceMatrix collect_importance(const ExecContext& ctx, model::Transformer& model, const model::TensorTable& table,
                                    const Calibration& calibration, std::size_t memory_limit, bool head = false);

}  // namespace temper::ptq
