// GPTQ (Frantar et al. 2023): rounds a matrix column by column so that its products with given inputs change least; every
// column takes up what the rounding of those before it did to the outputs. Works with any codec: parameters come from its
// fit, codes from its round.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <vector>

#include "ops/ops.h"
#include "quant/codec.h"
#include "tensor/exec_context.h"

namespace temper::ptq {

/// Parameters of every row of `values` F32 [rows, cols], one group or a whole row wide, with the importance of each column;
/// `params` has rows · params_per_row(cols) floats. Called from several threads with some of the
/// rows, but with all of them where they share parameters.
using FitRows = std::function<void(const quant::Codec& codec, const TensorView& values, std::span<const float> importance,
                                   std::span<float> params)>;

/// The codec's own fit: with importance where it has a use for it.
void fit_importance(const quant::Codec& codec, const TensorView& values, std::span<const float> importance,
                    std::span<float> params);

struct GptqOptions {
  double damping = 0.01;     ///< λ of H + λI, as a share of the mean of H's diagonal.
  bool act_order = true;     ///< Columns with the largest inputs first; else as they stand.
  std::int64_t block = 128;  ///< Columns between two products that bring the others up to date. Changes no more than the
                             ///< order of f32 sums.
  FitRows fit = fit_importance;
};

struct GptqResult {
  std::vector<std::byte> encoded;  ///< As Codec::round_rows would write it: what a file holds.
  double error;                    ///< tr((W - Ŵ) H (W - Ŵ)ᵀ), H with its damping.
};

/// Encodes `weights` F32 [N, K]. `hessian` F32 [K, K] is Σ x xᵀ over the inputs of the product, times any positive factor.
///
/// Parameters: with act_order, and where a format shares them beyond a group (a row, NVFP4's tensor scale, nested absmaxes),
/// they are fit to `weights` before any column is rounded, so that the file's layout needs no permutation. Otherwise each
/// group's are fit when its first column comes, to what the columns before it made of it. The importance of a column is its
/// weight in the loss once those before it are rounded.
///
/// The bytes are round(V, parameters) of the values V from which each column was rounded; they are decoded again and
/// compared with what errors were passed on from (LogicError if they differ). The same for any number of threads. Throws
/// BadRecipe if the codec's group does not divide K, Diverged where weights or Hessian are not finite.
GptqResult gptq(const ExecContext& ctx, const TensorView& weights, const TensorView& hessian, const quant::Codec& codec,
                const GptqOptions& options = {});

/// tr((W - Ŵ) H (W - Ŵ)ᵀ), all F32: the error of the product's outputs over the inputs that H is of.
double output_error(const ExecContext& ctx, const TensorView& weights, const TensorView& rounded, const TensorView& hessian);

}  // namespace temper::ptq
