// The residual streams of all calibration batches between two blocks: in memory, or in a file beyond a limit.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "tensor/tensor.h"

namespace temper::ptq {

/// One F32 matrix [tokens, hidden] per batch. Beyond `memory_limit` bytes (of all together) they lie in a mapped temporary
/// file without a name, in the folder that the environment variable TMPDIR names (else /tmp), which the system writes out
/// and reads back as it needs memory.
class HiddenStates {
 public:
  /// Throws IoError where the file cannot be made.
  HiddenStates(std::span<const std::int64_t> tokens, std::int64_t hidden, std::size_t memory_limit);

  TensorView operator[](std::size_t batch) const { return views_[batch]; }
  std::size_t size() const { return views_.size(); }
  bool in_file() const { return mapping_ != nullptr; }

 private:
  struct Mapping;
  struct Unmap {
    void operator()(Mapping* mapping) const;
  };
  std::unique_ptr<Mapping, Unmap> mapping_;
  std::vector<Tensor> owned_;
  std::vector<TensorView> views_;
};

}  // namespace temper::ptq
