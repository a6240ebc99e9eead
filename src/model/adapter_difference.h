// What training has added to adapters, as adapters of their own.
#pragma once

#include "model/adapters.h"

namespace temper::model {

/// s·B·A − s·B₀·A₀ of every matrix as adapters of twice the rank, B = [B, −B₀] and A = [A; A₀], whose alpha leaves s as it
/// is (as peft's path_initial_model_for_weight_conversion makes them); everything else is that of `adapters`. `start` has A₀
/// and B₀ of the same ranks. Throws Unsupported, naming the matrix, where twice the rank is more than it has.
Adapters adapter_difference(const TensorTable& table, const Adapters& adapters, const Adapters& start);

}  // namespace temper::model
