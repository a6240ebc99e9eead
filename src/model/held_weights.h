// Weights that are only used, not trained: as the file holds them.
#pragma once

#include <array>
#include <vector>

#include "model/weights.h"

namespace temper::model {

/// The weights of a checkpoint for evaluation and generation. Matrices in a number format stay in the file's mapped bytes:
/// products with few rows multiply them as they are, others get one block's operands at a time, decoded when it is visited.
/// Plain matrices are views of the mapping where it holds the compute dtype, else converted once. In HF row order.
class HeldWeights : public WeightSource {
 public:
  /// Keeps a reference to `reader`, whose mapping is read from. `compute` is the dtype of operands.
  HeldWeights(const CheckpointReader& reader, DType compute);

  BlockWeights acquire(const ExecContext& ctx, int layer, WeightForm form) override;
  void release(int) override {}
  ops::Weight embedding() const override { return embedding_; }
  ops::Weight head(const ExecContext& ctx, WeightForm form) override;
  TensorView final_norm() const override { return weights_[table_.final_norm()].dense; }

 private:
  ops::Weight hold(const CheckpointReader& reader, std::size_t index, DType wanted);
  /// The weight with a dense operand, in `scratch` where it has to be decoded.
  static ops::Weight dense(const ExecContext& ctx, ops::Weight weight, Tensor& scratch);

  const TensorTable& table_;
  std::vector<ops::Weight> weights_;  // by table index
  ops::Weight embedding_;             // as weights_, but plain ones in the file's own dtype
  std::vector<Tensor> owned_;
  std::array<Tensor, kLinears.size()> scratch_;
  Tensor head_scratch_;
};

}  // namespace temper::model
