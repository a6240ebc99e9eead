// What memory a run takes, before its first step: counted from the objects that hold it, and from a dry run of its passes.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "model/weights.h"
#include "recipe/recipe.h"
#include "tensor/exec_context.h"

namespace temper::train {

struct MemoryPart {
  std::string name;
  std::size_t bytes = 0;
};

struct MemoryPlan {
  std::vector<MemoryPart> parts;
  std::size_t arena = 0;  ///< Of these: the peak of the context's workspace, activations included.
  std::size_t peak() const;
  std::string text() const;  ///< A line for each part, and the peak.
};

/// One way to run, and what it takes.
struct MemoryChoice {
  recipe::Recompute recompute = recipe::Recompute::None;
  std::int64_t micro_batch = 0;
  std::size_t peak = 0;
  double work = 0;  ///< Of a step: operations and traffic of its schedule, in floating-point operations.
};
/// A line each: memory, and the time that the work lets expect beside the first's.
std::string text_of(const std::vector<MemoryChoice>& choices);

/// Resident set of this process as it is, in bytes; 0 where the system does not tell.
std::size_t resident_bytes();

/// What stands behind the weights of a network: "weights", the base as resident (a file's pages count where it is used from
/// its mapping; masters of trained tensors do not); "codes" of a scheme; "operands" of products that are neither. Each piece
/// of memory once. `dry`: ops/dry_run.h. `encoded` may be null.
std::vector<MemoryPart> weight_parts(const ExecContext& dry, model::BaseWeights& base, model::EncodedWeights* encoded);

}  // namespace temper::train
