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
/// What the adapters' config says is trained beside them: biases, embeddings, head; ascending. Throws BadRecipe for biases
/// that the model does not have, for a module that is neither embed_tokens nor lm_head, and where a tied table is named as
/// one of the two only.
std::vector<std::size_t> tensors_beside(const TensorTable& table, const Adapters& adapters);

class TrainedWeights {
 public:
  /// Masters of these tensors (by index in the table, ascending) as the file holds them, in F32, in place of the tensors of
  /// `base`, which must outlive this. Vectors (norms, biases) are not decayed. `stored`: the dtype to which matrices are
  /// rounded before they are multiplied with or looked up, that of the checkpoint which ships, so that what ships is what
  /// was trained; F32: none.
  TrainedWeights(const CheckpointReader& reader, BaseWeights& base, std::vector<std::size_t> tensors, DType stored);

  const ParameterArray& array() const { return array_; }         ///< "weights", under the tensors' HF names.
  const BaseGradients& gradients() const { return gradients_; }  ///< For Transformer::forward_backward.
  std::vector<TensorView> masters() const;                       ///< By table index; null where a tensor is not trained.
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

/// The base with the tensors of such a file in place of its own, in memory; its matrices have the file's dtype. `base` must
/// outlive it. Throws BadFile, naming file and tensor, for one that the base does not have so.
CheckpointReader with_trained_weights(const CheckpointReader& base, const std::filesystem::path& path);
/// The same with masters (by table index, F32; null: the base's tensor), matrices rounded to the base's dtype.
CheckpointReader with_masters(const ExecContext& ctx, const CheckpointReader& base, std::vector<Tensor> masters);

}  // namespace temper::model
