// Backward taps: what the backward pass hands out beside the gradients of adapters, to those who learn from it (scales of
// weights, ranges of activations), tile by tile: nothing is held whole.
#pragma once

#include "model/tensor_table.h"
#include "quant/static_range.h"
#include "tensor/exec_context.h"

namespace temper::model {

/// Called from one thread, in the order of the backward pass, once per micro-batch.
class BackwardTaps {
 public:
  virtual ~BackwardTaps() = default;
  /// True if weight_gradient is to be called for this projection: it costs a product.
  virtual bool wants_weight_gradient(int, Linear) const { return false; }
  /// dw F32 [n, in], valid and writable during the call: rows [first, first + n) of dYᵀX of a micro-batch, X as the product
  /// saw it: the gradient of the weight as it is multiplied.
  virtual void weight_gradient(const ExecContext&, int, Linear, std::int64_t, const TensorView&) {}
  /// Of a projection's input, where that is rounded to a static range.
  virtual void input_range(int, Linear, const quant::RangeGradient&) {}
  virtual void output_range(int, Linear, const quant::RangeGradient&) {}
  /// Of the head's input; zero where that has no static range.
  virtual void head_range(const quant::RangeGradient&) {}
};

}  // namespace temper::model
