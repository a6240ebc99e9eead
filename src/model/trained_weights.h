// A model's own tensors, trained: F32 masters in place of the base's tensors. All of them in full fine-tuning; embeddings,
// head or biases beside adapters.
#pragma once

#include <cstddef>
#include <filesystem>
#include <vector>

#include "model/checkpoint_reader.h"
#include "model/trainables.h"
#include "model/transformer.h"
#include "model/weights.h"

namespace temper::model {

/// Every tensor of a table, by index.
std::vector<std::size_t> all_tensors(const TensorTable& table);

class TrainedWeights {
 public:
  /// Masters of these tensors (by index in the table, ascending) as the file holds them, in F32, in place of the tensors of
  /// `base`, which must outlive this. Vectors (norms, biases) are not decayed. `stored`: the dtype to which matrices are
  /// rounded before they are multiplied with or looked up, that of the checkpoint which ships, so that what ships is what
  /// was trained; F32: none.
  TrainedWeights(const CheckpointReader& reader, BaseWeights& base, std::vector<std::size_t> tensors, DType stored);

  const ParameterArray& array() const { return array_; }         ///< "weights", under the tensors' HF names.
  const BaseGradients& gradients() const { return gradients_; }  ///< For Transformer::forward_backward.
  const std::vector<std::size_t>& tensors() const { return tensors_; }
  /// Makes what the forward pass reads: the masters as operands of the context's compute dtype; once per optimizer step.
  void prepare(const ExecContext& ctx);

  /// Writes the tensors under their HF names, in the table's shapes: matrices in `stored`, vectors F32 (with a family's
  /// offset added: what the network multiplies with). With these, eval and export have the bits of the forward pass.
  void save(const ExecContext& ctx, const std::filesystem::path& path) const;

 private:
  const TensorTable& table_;
  BaseWeights& base_;
  std::vector<std::size_t> tensors_;
  DType stored_;
  ParameterArray array_;
  BaseGradients gradients_;  // by table index
};

/// Where a run's folder keeps them.
inline constexpr const char* kTrainedWeightsName = "weights.safetensors";

/// The base with the tensors of such a file in place of its own: a checkpoint in memory, whose matrices have the file's
/// dtype. Throws BadFile, naming file and tensor, for one that the base does not have so.
CheckpointReader with_trained_weights(const CheckpointReader& base, const std::filesystem::path& path);

}  // namespace temper::model
