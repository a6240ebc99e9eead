// A model's weights with some matrices in number formats, each switched on and off: for measuring what a format costs.
#pragma once

#include <vector>

#include "model/weights.h"

namespace temper::ptq {

class MixedWeights : public model::WeightSource {
 public:
  /// `base` must outlive this. Nothing is encoded yet.
  explicit MixedWeights(model::BaseWeights& base);

  /// Encodes a matrix as it stands in the base, rounded to nearest; null takes it out. Switched off.
  void set(const ExecContext& ctx, std::size_t index, const quant::Codec* codec);
  /// Only these of the encoded matrices are seen; the others are as in the base.
  void activate(const ExecContext& ctx, std::span<const std::size_t> indices);

  model::BlockWeights acquire(const ExecContext& ctx, int layer, model::WeightForm form) override;
  void release(int) override {}
  ops::Weight embedding() const override;
  ops::Weight head(const ExecContext& ctx, model::WeightForm form) override;
  TensorView final_norm() const override { return base_.final_norm(); }

 private:
  struct Entry {
    const quant::Codec* codec = nullptr;
    std::vector<std::byte> bytes;
    bool active = false;
  };
  quant::EncodedView encoded(std::size_t index) const;

  model::BaseWeights& base_;
  std::vector<Entry> entries_;  // by table index
  std::vector<Tensor> tables_;  // by table index: operands of embedding and head where they are active
  std::array<Tensor, model::kLinears.size()> scratch_;
};

}  // namespace temper::ptq
