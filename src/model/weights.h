// Weight sources: a block asks for its weights and gives them back. Behind `acquire` may stand resident 16-bit tensors or
// the codes of this step; the block does not know which.
#pragma once

#include <array>
#include <vector>

#include "model/adapters.h"
#include "model/checkpoint_reader.h"
#include "ops/ops.h"
#include "quant/scheme.h"

namespace temper::model {

/// How a weight is asked for. Dense: an operand in the context's compute dtype, for any number of rows and for gradients.
/// Products: the same, but in codes alone where ops::multiplies_integers, for forward passes. Held: as the source keeps it,
/// in codes or dense, for products with at most ops::kFewRows rows.
enum class WeightForm { Dense, Products, Held };
/// True if a weight asked for in this form needs its dense operand.
inline bool needs_dense(const ExecContext& ctx, const ops::Weight& weight, WeightForm form) {
  return form == WeightForm::Dense || (form == WeightForm::Products && !ops::multiplies_integers(ctx, weight));
}

/// Weights of one block: vectors F32, projections [out, in].
struct BlockWeights {
  std::array<TensorView, kBlockVectors> vectors;  ///< Null where the architecture has none.
  std::array<ops::Weight, kLinears.size()> linear;
  const ops::Weight& operator[](Linear l) const { return linear[static_cast<std::size_t>(l)]; }
  const TensorView& operator[](BlockVector v) const { return vectors[static_cast<std::size_t>(v)]; }
};

/// Fills a block's vectors from `at(index)`, by index in the table.
template <typename At>
void fill_vectors(std::array<TensorView, kBlockVectors>& vectors, const TensorTable& table, int layer, At&& at) {
  for (std::size_t v = 0; v < kBlockVectors; ++v)
    if (const auto index = table.vector(layer, static_cast<BlockVector>(v))) vectors[v] = at(*index);
}

class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// Valid until release; at most one block is out at a time.
  virtual BlockWeights acquire(const ExecContext& ctx, int layer, WeightForm form) = 0;
  virtual void release(int layer) = 0;
  virtual ops::Weight embedding() const = 0;                              ///< [vocab, hidden], codes or F32, BF16 or F16.
  virtual ops::Weight head(const ExecContext& ctx, WeightForm form) = 0;  ///< [vocab, hidden]. Valid until the next call.
  virtual TensorView final_norm() const = 0;                              ///< F32 [hidden].
};

/// How matrices of a checkpoint are held.
enum class Hold : std::uint8_t {
  Stored,    ///< As the file has them: those in a number format in its bytes, decoded when they are visited; plain ones in
             ///< the checkpoint's dtype. For training.
  Operands,  ///< The same, but plain ones are converted once to the dtype of products. For evaluation and generation.
  Expanded,  ///< All in the checkpoint's dtype, number formats decoded for good: for weights that will be changed.
};

/// The weights of a checkpoint, in HF order. What is held as the file has it are views of the mapping, unless its rows are
/// in another order. Of matrices in number formats there is one block's worth of operands at a time, and the head's.
class BaseWeights : public WeightSource {
 public:
  /// Keeps a reference to `reader`, whose mapping is read from. `compute` is the dtype of operands that acquire will give.
  BaseWeights(const CheckpointReader& reader, DType compute, Hold hold = Hold::Stored);

  BlockWeights acquire(const ExecContext& ctx, int layer, WeightForm form) override;
  void release(int) override {}
  ops::Weight embedding() const override { return embedding_; }
  ops::Weight head(const ExecContext& ctx, WeightForm form) override;
  TensorView final_norm() const override { return weights_[table_.final_norm()].dense; }

  const TensorTable& table() const { return table_; }
  const ArchSpec& arch() const { return arch_; }
  DType storage() const { return storage_; }
  /// A tensor as resident: matrices in storage(), norms F32; a trained one is its master, F32. Throws LogicError for one
  /// that is held in a number format, or converted for products.
  TensorView tensor(std::size_t index) const;
  const ops::Weight& held(std::size_t index) const { return weights_[index]; }  ///< A tensor however it is held.
  /// The values of a matrix as the file has them, resident or in the workspace; of one in a number format, decoded to
  /// `dtype`.
  TensorView values(const ExecContext& ctx, std::size_t index, DType dtype) const;
  /// True if a matrix is held in a number format.
  bool encoded(std::size_t index) const { return weights_[index].encoded.codec != nullptr; }
  /// Puts another tensor in place of the checkpoint's, of the same shape and dtype: merged adapters, or weights that
  /// post-training quantization transforms before it rounds them. Exports take it, too.
  void replace(const ExecContext& ctx, std::size_t index, Tensor tensor);
  bool replaced(std::size_t index) const { return !replaced_.empty() && replaced_[index]; }
  /// The tensor is trained: from now on it is `master` (F32, of the same shape; its owner's memory), and the checkpoint's is
  /// let go. Its first use comes after masters_changed.
  void train(std::size_t index, const TensorView& master);
  bool trained(std::size_t index) const { return !masters_.empty() && masters_[index]; }
  /// Makes the operands of trained matrices anew: masters rounded to `stored`, then to the compute dtype. They may not be
  /// replaced().
  void masters_changed(const ExecContext& ctx, DType stored);
  /// A projection as a block takes it.
  ops::Weight linear(const ExecContext& ctx, int layer, std::size_t linear, WeightForm form);

 private:
  ops::Weight hold(std::size_t index, Hold hold, DType compute);
  ops::Weight reordered(const StoredTensor& stored);
  void set_tables(const ExecContext* ctx);

  const CheckpointReader& reader_;
  const TensorTable& table_;
  const ArchSpec& arch_;
  DType storage_, compute_;
  std::vector<Tensor> owned_;
  std::vector<ops::Weight> weights_;  // by table index
  ops::Weight embedding_, head_;      // head_: in codes, or of the compute dtype
  std::vector<bool> replaced_;        // by table index; empty: none
  std::vector<bool> masters_;         // the same: whose tensor is a master
  std::vector<Tensor> operands_;      // the same: of trained matrices
  Tensor head_copy_, head_scratch_;
  std::array<Tensor, kLinears.size()> scratch_;  // operands, where a matrix is held otherwise
};

/// What EncodedWeights::encode does with a tensor: fit and round it, round it with the parameters that its encoding holds,
/// or leave it as it is.
enum class Encoding : std::uint8_t { Fit, KeepParameters, Leave };

/// Who makes the codes. Rounded: `encode`, and embedding and head at once. Given: nobody yet; `set` puts them there, tensor
/// by tensor, and what has none counts as it is in the base. GivenWithImportance: with the formats that the scheme chooses
/// where there is an importance matrix.
enum class Codes { Rounded, Given, GivenWithImportance };

/// Weights held in a scheme's number formats: the codes of this step. Made from a base, with adapters merged before
/// rounding.
class EncodedWeights : public WeightSource {
 public:
  /// `base` must outlive this. Merged weights are rounded to `merged` before they are fit and rounded: the checkpoint's
  /// dtype (base.storage()) for codes that any tool makes from the merged checkpoint, or F32. Throws BadRecipe if a group
  /// does not divide a row. Nothing is encoded yet but embedding and head.
  EncodedWeights(const ExecContext& ctx, BaseWeights& base, const quant::Scheme& scheme, DType merged,
                 Codes codes = Codes::Rounded);

  /// The format of a tensor, or null where it stays 16-bit.
  const quant::Codec* codec(std::size_t index) const { return codecs_[index]; }
  /// What activations are rounded to before products with a tensor, and what products are rounded to: as the scheme says,
  /// in the arithmetic of operands; null: nothing. Formats with a static range are used from when it is given.
  const quant::Codec* input(std::size_t index) const { return inputs_[index].codec; }
  const quant::Codec* output(std::size_t index) const { return outputs_[index].codec; }
  const quant::StaticRange& input_range(std::size_t index) const { return inputs_[index].range; }
  const quant::StaticRange& output_range(std::size_t index) const { return outputs_[index].range; }
  void set_input_range(std::size_t index, const quant::StaticRange& range) { inputs_[index].range = range; }
  void set_output_range(std::size_t index, const quant::StaticRange& range) { outputs_[index].range = range; }
  /// Codes and parameters of a tensor, rows in HF order, of all rows.
  void set(const ExecContext& ctx, std::size_t index, std::vector<std::byte> bytes);

  /// Merges (adapters may be null), fits and rounds every projection, and embedding and head where they are trained: once
  /// per optimizer step. The returned counts compare
  /// with the encoding before; `per_tensor`, if given, gets those of each tensor by its index in the table. `how`, by index
  /// in the table, is asked only for these; empty: fits all.
  quant::CodeStats encode(const ExecContext& ctx, const Adapters* adapters,
                          std::vector<quant::CodeStats>* per_tensor = nullptr, std::span<const Encoding> how = {});
  /// Factors of the scales of a projection (quant/learnt_scales.h), F32 [rows, groups], for encode from now on; they must
  /// outlive this.
  void set_factors(std::size_t index, std::span<const float> factors);
  /// The matrix as encode makes it (in the workspace where the base holds it in a number format), for the gradients of its
  /// factors: rows [first, first + n). `lora` holds the adapter's
  /// part of them.
  ops::LearntScales learnt_scales(const ExecContext& ctx, const Adapters* adapters, std::size_t index, std::int64_t first,
                                  std::int64_t n, ops::LoraView& lora) const;

  BlockWeights acquire(const ExecContext& ctx, int layer, WeightForm form) override;
  void release(int) override {}
  ops::Weight embedding() const override;
  ops::Weight head(const ExecContext& ctx, WeightForm form) override;
  TensorView final_norm() const override { return base_.final_norm(); }

  const quant::Scheme& scheme() const { return scheme_; }
  const TensorTable& table() const { return base_.table(); }
  BaseWeights& base() { return base_; }
  const BaseWeights& base() const { return base_; }
  /// Codes and parameters of a tensor in HF row order: what export writes. codec is null where the scheme leaves it 16-bit.
  quant::EncodedView encoded(std::size_t index) const;
  /// The same, writable. An encoding holds its parameters as they are stored; whoever writes both here (a checkpoint, GPTQ,
  /// a file's own blocks) and encodes with Encoding::KeepParameters from then on trains with them.
  std::span<std::byte> encoded_bytes(std::size_t index);
  /// To be called when encoded_bytes of an embedding or head have been written: their operands are made again. Nothing for
  /// projections.
  void bytes_written(const ExecContext& ctx, std::size_t index);

 private:
  void merge(const ExecContext& ctx, std::size_t index, const ops::LoraView& lora);
  quant::CodeStats encode(const ExecContext& ctx, std::size_t index, const ops::LoraView* lora, Encoding how);
  void set_rounding(ops::Weight& weight, std::size_t index) const;

  BaseWeights& base_;
  const quant::Scheme& scheme_;
  std::vector<const quant::Codec*> codecs_;  ///< By tensor; nullptr: it stays as it is.
  DType merged_;
  /// By tensor: what its products' activations are rounded to, and its products.
  std::vector<quant::InputFormat> inputs_, outputs_;
  std::vector<std::span<const float>> factors_;  ///< By tensor; empty: none.
  std::vector<std::vector<std::byte>> encoded_;  // by table index; empty where 16-bit
  std::vector<Tensor> operands_;                 // by table index; decoded embedding and head, projections that stay 16-bit
  std::array<Tensor, kLinears.size()> scratch_;
};

}  // namespace temper::model
