// What every operation is told: where to run, with which scratch memory, in which precision.
#pragma once

#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace temper {

namespace ops {
class Backend;  // defined by ops; tensor only carries it
}

/// What a product takes its activations as. Bits8: rounded on the 8-bit grid that llama.cpp's CPU products use with the
/// weight's number format (quant/activations.h); for evaluation and generation.
enum class Activations { Bits16, Bits8 };

/// First argument of every op. One per stream of work; not shared between threads.
struct ExecContext {
  const ops::Backend* backend = nullptr;  ///< Who computes.
  Arena* workspace = nullptr;             ///< Scratch that an op takes in an ArenaScope and gives back before it returns.
  DType compute = DType::F32;             ///< Dtype of products' operands and of stored activations: F32 or BF16.
  Activations activations = Activations::Bits16;
  /// Products of 8-bit activations with integer weights are computed as a device does, summed up in int32, where there is a
  /// kernel for them (quant/int_product.h). False: as products of the decoded operands.
  bool integer_products = true;
};

}  // namespace temper
