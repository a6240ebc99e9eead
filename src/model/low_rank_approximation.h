// The best approximation of a matrix by one of low rank.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/exec_context.h"
#include "tensor/tensor.h"

namespace temper::model {

/// b [N, r] = U √S and a [r, K] = √S Vᵀ of the r largest singular values of `matrix` [N, K], all F32, so that b · a is the
/// nearest matrix of that rank (Eckart & Young 1936). By subspace iteration (Halko, Martinsson & Tropp 2011, algorithm 4.4)
/// with twice the rank, from directions drawn from `seed`, until an iteration adds less than 1e-5 of what it holds of
/// ‖matrix‖²; the same bits whatever the threads. Returns the singular values, falling; columns and rows of those below 1e-6
/// of the largest (rounding) are not written.
std::vector<double> low_rank_approximation(const ExecContext& ctx, const TensorView& matrix, const TensorView& b,
                                           const TensorView& a, std::uint64_t seed);

}  // namespace temper::model
