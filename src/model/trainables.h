// What a run trains, as one list: named segments in flat F32 arrays of masters and gradients. Optimizer, clipping,
// checkpoints, resuming and the search for a gradient that is not finite work on this list, and know nothing of adapters.
//
// To train something more (biases, tables, scales, magnitudes …):
//   1. Where it belongs to an array that is there (a magnitude to its adapter), its owner adds a Segment to that array's.
//      Otherwise its owner makes a ParameterArray of its own, under a name that no other array has, and fills
//      parameter(i) with first values.
//   2. The owner makes what the forward pass reads from the masters once per optimizer step (train/qat.h: prepare calls it),
//      and the backward pass adds (+=) to gradient(i). Nobody but the owner need know the shapes.
//   3. The session adds the array to its list (Session::Session: trainables_.add). From then on gradients are zeroed,
//      measured, clipped; masters are stepped, checkpointed and restored bit for bit.
//   4. What a finished run shall ship, its owner writes (Session::finish) and whoever opens a run reads.
// Weight decay and learning rate differ by segment: weight_decay, lr_factor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tensor/exec_context.h"
#include "tensor/tensor.h"

namespace temper::model {

/// Parameters that share a name, a shape and rules.
struct Segment {
  std::string name;  ///< "model.layers.0.mlp.up_proj.lora_A.weight": for people, and unique in a run.
  Shape shape;
  bool weight_decay = true;  ///< False: optim.weight_decay does not apply.
  float lr_factor = 1.0f;    ///< Multiplies the learning rate.
};

/// Masters and gradients of some segments, each in one flat F32 array; every segment begins on a cache line of its own. A
/// handle: copies share the memory.
class ParameterArray {
 public:
  ParameterArray() = default;  ///< Of nothing.
  /// Both arrays are zero. `name` stands before those of state tensors in checkpoints.
  ParameterArray(std::string name, std::vector<Segment> segments);

  const std::string& name() const { return name_; }
  std::size_t size() const { return segments_.size(); }
  const Segment& segment(std::size_t i) const { return segments_[i]; }
  std::int64_t offset(std::size_t i) const { return offsets_[i]; }  ///< Of its first element in the arrays.
  TensorView parameter(std::size_t i) const { return piece(parameters_, i); }
  TensorView gradient(std::size_t i) const { return piece(gradients_, i); }
  /// A segment's part of any array in this layout.
  TensorView piece(const TensorView& flat, std::size_t i) const;

  TensorView parameters() const { return parameters_; }  ///< F32 [n], zero between segments.
  TensorView gradients() const { return gradients_; }    ///< F32 [n], in the same order.
  std::int64_t count() const;                            ///< Parameters, without what lies between segments.

 private:
  std::string name_;
  std::vector<Segment> segments_;
  std::vector<std::int64_t> offsets_;
  Tensor parameters_, gradients_;
};

class Trainables {
 public:
  /// LogicError where a name was added before.
  void add(const ParameterArray& array);
  const std::vector<ParameterArray>& arrays() const { return arrays_; }
  std::int64_t count() const;

  void zero_gradients(const ExecContext& ctx) const;
  /// √Σ g² over all gradients, in double, in an order that depends only on the sizes. NaN or infinite if any gradient is.
  double gradient_norm(const ExecContext& ctx) const;
  /// "gradient of model.layers.3.mlp.up_proj.lora_B.weight (nan)": the first one that is not finite; empty: all are.
  std::string first_non_finite() const;

 private:
  std::vector<ParameterArray> arrays_;
};

}  // namespace temper::model
