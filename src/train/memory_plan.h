// What memory a run takes, before its first step: counted from the objects that hold it, and from a dry run of its passes.
#pragma once

#include <cstddef>
#include <set>
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
std::string_view recompute_name(recipe::Recompute recompute);
/// A line each: memory, and the time that the work lets expect beside the first's.
std::string text_of(const std::vector<MemoryChoice>& choices);

/// What a run would take if its weights were held in another number of bits.
struct MemoryAtBits {
  int bits = 0;
  std::size_t weights = 0, peak = 0;
};

/// All that is known of a run that is not begun.
struct RunPlan {
  MemoryPlan memory;
  std::vector<MemoryChoice> choices;  ///< Every way to save memory, the fastest first.
  std::size_t chosen = 0;             ///< Of these: the one that the plan is of.
  std::size_t limit = 0;              ///< train.memory; 0: none.
  std::vector<MemoryAtBits> at_bits;
  double step_seconds = 0;  ///< Measured.
  std::int64_t steps = 0;   ///< To be done.
  double seconds() const { return step_seconds * static_cast<double>(steps); }
  std::string text() const;
};

/// Counts what stands behind the weights of networks that may share some, each piece of memory once.
class WeightMemory {
 public:
  explicit WeightMemory(const ExecContext& dry) : dry_(dry) {}  ///< ops/dry_run.h

  /// What a network has that has not been counted yet: "weights", the base as resident (a file's pages count where it is
  /// used from its mapping; masters of trained tensors do not); "codes" of a scheme; "operands" of products that are
  /// neither. `encoded` may be null.
  std::vector<MemoryPart> add(model::BaseWeights& base, model::EncodedWeights* encoded);

 private:
  void count(MemoryPart& part, const void* data, std::size_t bytes) {
    if (data && seen_.insert(data).second) part.bytes += bytes;
  }
  void count(MemoryPart& part, const TensorView& tensor) { count(part, tensor.data, tensor.bytes()); }
  void count(MemoryPart& part, const quant::EncodedView& codes) { count(part, codes.bytes.data(), codes.bytes.size()); }

  const ExecContext& dry_;
  std::set<const void*> seen_;
};

}  // namespace temper::train
