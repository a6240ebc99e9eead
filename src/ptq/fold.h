// Changes of a model's weights that leave what it computes as it is, folded into the weights themselves so that any runtime
// reads the result: channels of a linear's input divided by factors that the linear's columns take up (AWQ, SmoothQuant),
// norms' weights put into the linears that follow, rotations.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "model/checkpoint_reader.h"
#include "model/taps.h"

namespace temper::ptq {

/// The linears that read an input of a block.
std::span<const model::Linear> consumers(model::LinearInput input);

/// A model's weights in F32, in HF order of rows, while they are changed. Holds all of them: 4 bytes a weight.
class FoldedModel {
 public:
  explicit FoldedModel(const model::CheckpointReader& reader);
  /// `read` writes a tensor, by its index in the table of `arch`, into an F32 view of its shape.
  FoldedModel(model::ArchSpec arch, const std::function<void(std::size_t index, const TensorView& out)>& read);

  const model::ArchSpec& arch() const { return arch_; }
  const model::TensorTable& table() const { return table_; }
  TensorView tensor(std::size_t index) const { return tensors_[index]; }
  TensorView linear(int layer, model::Linear linear) const { return tensors_[table_.linear(layer, linear)]; }

  /// Factors that `scale_input` takes: as many as the input has channels, or, for Output, as the values have (query heads
  /// that share a value head share its factors).
  std::int64_t factors(model::LinearInput input) const;
  /// Factors of each channel of the input: `per_factor` as it is, or, for Output, repeated for the query heads that share.
  std::vector<float> per_channel(model::LinearInput input, std::span<const float> per_factor) const;

  /// Divides a linear input by factors (positive, finite) and multiplies its consumers' columns by them. What divides it:
  /// Attention and Mlp: the norm's weights; Output: rows of v and its bias; Down: rows of up. LogicError for Head.
  void scale_input(int layer, model::LinearInput input, std::span<const float> per_factor);

  /// Multiplies the columns of the linears behind each norm by the norm's weights, which become 1; the final norm's go into
  /// the head, which is untied from the embedding first.
  void fold_norms();
  /// Gives a tied head weights of its own.
  void untie();

  /// A tensor rounded to `storage`; a norm in F32.
  Tensor stored(std::size_t index, DType storage) const;
  /// The model as a checkpoint in memory: matrices rounded to `storage`, norms F32; tokenizer, configuration and path are
  /// those of `reader`, which it was read from.
  model::CheckpointReader finish(const model::CheckpointReader& reader, DType storage) const;

 private:
  model::ArchSpec arch_;
  model::TensorTable table_;
  std::vector<Tensor> tensors_;  // by table index
};

}  // namespace temper::ptq
