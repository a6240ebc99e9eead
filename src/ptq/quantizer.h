// Post-training quantization of a whole model, as a recipe asks for it.
#pragma once

#include <optional>

#include "eval/loaded_model.h"
#include "ptq/imatrix.h"
#include "ptq/method.h"

namespace temper::ptq {

/// Makes codes by `method`: embedding and head first, then block by block. Where the method looks at inputs, each block's
/// are those that the blocks before it give as they are encoded by then, hidden states beyond `memory_limit` bytes in a
/// file. Parts of one stored matrix (qkv_proj) are encoded as one where the format has parameters of a whole matrix.
void make_codes(const ExecContext& ctx, model::EncodedWeights& weights, Method& method, const Calibration* calibration,
                std::size_t memory_limit);

/// "rotated and scaled by AWQ", …; empty for none.
std::string_view transform_name(recipe::QuantTransform transform);

/// What recipe.quant and recipe.calibration ask for, as eval::LoadedModel::open takes it.
class Quantizer {
 public:
  /// Reads the importance matrix, if one is named. Data at hand (null: none) go before what the recipe names. All must
  /// outlive this.
  explicit Quantizer(const recipe::Recipe& recipe, const Calibration* calibration = nullptr,
                     const ImportanceMatrix* importance = nullptr);
  /// Refers to this.
  eval::CodeMaker maker();

  /// The matrix that was read or given; null without.
  const ImportanceMatrix* importance() const { return read_ ? &*read_ : given_importance_; }
  /// One line: what was done.
  const std::string& description() const { return description_; }

 private:
  void fill(const ExecContext& ctx, model::EncodedWeights& weights, const text::Tokenizer& tokenizer);

  void find_ranges(const ExecContext& ctx, model::EncodedWeights& weights, const Calibration* calibration) const;

  const recipe::Recipe& recipe_;
  const Calibration* given_;
  const ImportanceMatrix* given_importance_;
  std::optional<ImportanceMatrix> read_;
  std::string description_;
};

}  // namespace temper::ptq
