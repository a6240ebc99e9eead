// What an optimizer keeps for each parameter of an array, in F32 or narrower.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/ops.h"
#include "recipe/recipe.h"
#include "tensor/tensor.h"
#include "train/state_tensors.h"

namespace temper::train {

/// A range of an array's elements that is stepped at once.
struct StateRange {
  std::int64_t begin = 0, end = 0;
  bool codes = false;  ///< In codes where states are 8-bit; else F32.
};

/// Segments of fewer parameters keep F32 states beside 8-bit ones, as in bitsandbytes: norms and biases.
inline constexpr std::int64_t kMinCodes = 4096;

/// One state (a moment) of every parameter of an array, zero at first.
///   f32    NAME F32 [n], n that of the array
///   bf16   NAME BF16 [n]
///   8bit   NAME.codes U8 [blocks · 256] and NAME.absmax F32 [blocks], the ranges of codes after one another, each on whole
///          blocks; NAME F32, the other ranges after one another
class MomentArray {
 public:
  /// `size` is that of the array. `zero_code` is the code of 0.
  MomentArray(std::string name, recipe::StateDtype dtype, std::int64_t size, std::vector<StateRange> ranges,
              std::uint8_t zero_code);

  ops::OptimizerState range(std::size_t i) const;
  /// Its tensors, for checkpoints.
  void append_to(std::vector<StateTensor>& tensors) const;
  std::size_t bytes() const;

 private:
  std::string name_;
  std::vector<StateRange> ranges_;
  std::vector<std::int64_t> offsets_;  // by range, into codes_ or values_
  Tensor values_, codes_, absmax_;
};

}  // namespace temper::train
