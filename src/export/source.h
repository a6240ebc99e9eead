// What is exported, one tensor at a time: a base on disk, perhaps with adapters to merge, perhaps with the codes it was
// trained with.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "model/adapters.h"
#include "model/checkpoint_reader.h"
#include "model/weights.h"
#include "text/tokenizer.h"

namespace temper::exporter {

class ExportSource {
 public:
  /// `adapters` and `trained` may be null; so may `tokenizer` where the reader's GGUF file has one to copy. What they point
  /// to, and `reader`, must outlive this.
  ExportSource(const model::CheckpointReader& reader, const text::Tokenizer* tokenizer,
               const model::Adapters* adapters = nullptr, const model::EncodedWeights* trained = nullptr)
      : reader_(reader), tokenizer_(tokenizer), adapters_(adapters), trained_(trained) {}

  const model::CheckpointReader& reader() const { return reader_; }
  const model::ArchSpec& arch() const { return reader_.arch(); }
  const model::TensorTable& table() const { return reader_.table(); }
  const text::Tokenizer& tokenizer() const {
    if (!tokenizer_) throw LogicError("export without a tokenizer");
    return *tokenizer_;
  }
  const model::Adapters* adapters() const { return adapters_; }
  /// The scheme of the codes at hand, or null.
  const quant::Scheme* trained_scheme() const { return trained_ ? &trained_->scheme() : nullptr; }

  /// Static ranges that the codes at hand go with; unknown without.
  quant::StaticRange input_range(std::size_t index) const {
    return trained_ ? trained_->input_range(index) : quant::StaticRange();
  }
  quant::StaticRange output_range(std::size_t index) const {
    return trained_ ? trained_->output_range(index) : quant::StaticRange();
  }

  /// A matrix in HF order and in the checkpoint's dtype (arch().dtype), adapters merged: round(W + s·B·A); or what stands in
  /// its place in the base of the codes at hand.
  Tensor merged(const ExecContext& ctx, std::size_t index) const;
  /// A norm in F32.
  Tensor norm(std::size_t index) const;
  /// True if rows of a matrix can be had apart at no cost: encoded(…, begin, end) of few rows then costs as many.
  bool rows_apart(std::size_t index, const quant::Codec& codec) const;
  /// True if the codes at hand are those that it was trained with, in that codec.
  bool has_trained_codes(std::size_t index, const quant::Codec& codec) const {
    return trained_codes(index, codec).codec != nullptr;
  }
  /// Rows [begin, end) of a matrix in `codec`, in HF order: the codes that it was trained with if they are in that codec,
  /// else fit and rounded now from merged().
  std::vector<std::byte> encoded(const ExecContext& ctx, std::size_t index, const quant::Codec& codec, std::int64_t begin,
                                 std::int64_t end) const;
  /// All rows of a matrix that is stored as one of these tensors, one after another: encoded() of each or, where their
  /// parameters are those of the whole matrix and no codes are at hand, fit over all of it.
  std::vector<std::byte> encoded(const ExecContext& ctx, std::span<const std::size_t> parts,
                                 const quant::Codec& codec) const;

 private:
  std::vector<std::byte> rounded(const ExecContext& ctx, const TensorView& rows, const quant::Codec& codec,
                                 std::string_view name, std::int64_t first_row) const;
  /// merged() as the mapped file holds it, if that holds just these values; else null.
  TensorView mapped(std::size_t index) const;
  /// What stands in place of the checkpoint's tensor, or null.
  TensorView replacement(std::size_t index) const;
  /// The codes that it was trained with, if they are in that codec; else an empty view.
  quant::EncodedView trained_codes(std::size_t index, const quant::Codec& codec) const;

  const model::CheckpointReader& reader_;
  const text::Tokenizer* tokenizer_;
  const model::Adapters* adapters_;
  const model::EncodedWeights* trained_;
};

}  // namespace temper::exporter
