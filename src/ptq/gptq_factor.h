// The order in which GPTQ quantizes columns, and the factor of the Hessian by which it passes errors on.
#pragma once

#include <vector>

#include "tensor/tensor.h"

namespace temper::ptq {

/// H + λI = (I + U) D (I + U)ᵀ in the order of `columns`, U strictly upper triangular. With errors e = w - ŵ of a row, the
/// loss e H eᵀ is Σ_k D_k (e_k + Σ_{i<k} e_i U_ik)²: a column k that is rounded from w_k + Σ_{i<k} e_i U_ik makes its term
/// as small as rounding can. That is what GPTQ does, there written with the Cholesky factor of H's inverse (Chee et al.
/// 2023, "QuIP", theorem 6); no inverse is needed.
struct ErrorFactor {
  std::vector<std::int64_t> columns;  ///< columns[p]: the column that is quantized p-th.
  Tensor upper;                       ///< F32 [K, K]: U, zero on the diagonal and below.
  std::vector<double> diagonal;       ///< D.
};

/// `hessian` F32 [K, K], symmetric (the upper triangle is not read): Σ x xᵀ over inputs x, times any positive factor. λ =
/// `damping` times the mean of its diagonal. With `act_order` the columns go by falling diagonal, else as they stand.
/// Factored in f64, in an order of sums that depends on K alone. Throws Diverged if it is not finite, LogicError if not
/// square.
ErrorFactor factor_hessian(const TensorView& hessian, double damping, bool act_order);

}  // namespace temper::ptq
