// The mean square of every column of every linear's input: the diagonal of Σ x xᵀ, and the importance of a weight's column.
#pragma once

#include <vector>

#include "model/taps.h"

namespace temper::ptq {

class SquareSums : public model::Taps {
 public:
  explicit SquareSums(int layers) : sums_(static_cast<std::size_t>(layers * model::kBlockInputs + 1)) {}

  void input(const ExecContext& ctx, int layer, model::LinearInput which, const TensorView& x) override;
  /// Σ x² by column of a matrix's input, in f64; of embedding and head, the head's.
  const std::vector<double>& of(const model::TensorTable& table, std::size_t tensor) const;

 private:
  std::size_t slot(int layer, model::LinearInput which) const;
  std::vector<std::vector<double>> sums_;
};

}  // namespace temper::ptq
