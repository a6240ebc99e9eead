// Tensors that the next step depends on, by name: masters, optimizer states, and whatever else must survive a restart.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace temper::train {

/// Contiguous memory of its owner's; a checkpoint writes it, and a resumed run reads it back into the same place.
struct StateTensor {
  std::string name;  ///< "adapters.parameters", "adapters.exp_avg", …; does not begin with "codes.".
  TensorView tensor;
};

/// Copies stored tensors into the run's, by name. Throws BadFile, naming `origin`, tensor, expected and found, where one is
/// missing, has another dtype or shape, or is unknown to the run.
void restore_tensors(std::span<const StateTensor> run, std::span<const StateTensor> stored, const std::string& origin);

}  // namespace temper::train
