// Taps: the inputs of a model's linears, observed as a pass goes by (calibration, importance, Hessians, activation ranges).
#pragma once

#include "model/tensor_table.h"
#include "tensor/exec_context.h"

namespace temper::model {

/// The distinct inputs of linears: q, k and v share one, gate and up another.
enum class LinearInput { Attention, Output, Mlp, Down, Head };
inline constexpr int kBlockInputs = 4;  ///< Those of one block; Head is the last.

inline LinearInput input_of(Linear linear) {
  switch (linear) {
    case Linear::Q:
    case Linear::K:
    case Linear::V: return LinearInput::Attention;
    case Linear::O: return LinearInput::Output;
    case Linear::Gate:
    case Linear::Up: return LinearInput::Mlp;
    case Linear::Down: break;
  }
  return LinearInput::Down;
}

/// Sees every linear's input of a forward pass (Transformer::set_taps). A recomputation in a backward pass is seen, too.
class Taps {
 public:
  virtual ~Taps() = default;
  /// x T [rows, in], valid during the call, before it is rounded for 8-bit products; `layer` is -1 for the head, which sees
  /// only the rows whose logits or loss are asked for. Called from one thread, blocks and batches in order.
  virtual void input(const ExecContext& ctx, int layer, LinearInput which, const TensorView& x) = 0;
  /// True if `output` is to be called for a projection.
  virtual bool wants_output(int, Linear) const { return false; }
  /// y T [rows, out]: the projection's product with its bias, before it is rounded or added to anything.
  virtual void output(const ExecContext&, int, Linear, const TensorView&) {}
};

}  // namespace temper::model
