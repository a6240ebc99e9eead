#include "train/state_tensors.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"

namespace temper::train {

void restore_tensors(std::span<const StateTensor> run, std::span<const StateTensor> stored, const std::string& origin) {
  for (const StateTensor& mine : run) {
    const auto found = std::ranges::find(stored, mine.name, &StateTensor::name);
    if (found == stored.end())
      throw BadFile("{}: expected {} ({} {}), found none; was the run begun with another version of temper?", origin,
                    mine.name, dtype_name(mine.tensor.dtype), mine.tensor.shape.str());
    if (found->tensor.dtype != mine.tensor.dtype || found->tensor.shape != mine.tensor.shape)
      throw BadFile("{}: {}: expected {} {}, found {} {}", origin, mine.name, dtype_name(mine.tensor.dtype),
                    mine.tensor.shape.str(), dtype_name(found->tensor.dtype), found->tensor.shape.str());
    if (mine.tensor.bytes() > 0) std::memcpy(mine.tensor.data, found->tensor.data, mine.tensor.bytes());
  }
  for (const StateTensor& tensor : stored)
    if (std::ranges::find(run, tensor.name, &StateTensor::name) == run.end())
      throw BadFile("{}: {}: this run has no such tensor", origin, tensor.name);
}

}  // namespace temper::train
