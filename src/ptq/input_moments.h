// What GPTQ, AWQ and SmoothQuant need to know of a block's linear inputs: second moments and largest magnitudes.
#pragma once

#include <array>
#include <vector>

#include "model/taps.h"
#include "tensor/tensor.h"

namespace temper::ptq {

/// Gathers them over all rows that it is shown, until `clear`. Sums in f32, batches in order: the same for any number of
/// threads.
class InputMoments : public model::Taps {
 public:
  void input(const ExecContext& ctx, int layer, model::LinearInput which, const TensorView& x) override;
  void clear();

  /// F32 [K, K]: Σ x xᵀ. Throws LogicError where nothing was seen.
  TensorView hessian(model::LinearInput which) const;
  /// max |x| of each channel.
  const std::vector<float>& largest(model::LinearInput which) const;

 private:
  struct Input {
    Tensor hessian;
    std::vector<float> largest;
  };
  const Input& seen(model::LinearInput which) const;
  std::array<Input, model::kBlockInputs> inputs_;
};

}  // namespace temper::ptq
