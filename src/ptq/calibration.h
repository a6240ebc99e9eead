// Calibration data: what a model is shown so that the inputs of its linears can be measured.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "eval/score.h"
#include "recipe/recipe.h"
#include "text/tokenizer.h"

namespace temper::ptq {

struct Calibration {
  std::vector<eval::ModelBatch> batches;  ///< At most kTokensPerPass tokens each (a longer sequence goes alone).
  std::int64_t tokens = 0, sequences = 0;
  std::string source;  ///< The file.
};

/// Reads options.path: rows (a name that ends in .jsonl or .json; `format` as data.format) or plain text. Text is cut into
/// sequences of options.context tokens side by side, a rest dropped, with BOS in place of each first token where the
/// tokenizer adds one; rows are rendered as for training, and cut at options.context. Of these, options.tokens are taken:
/// all in order if there are no more, else a choice by options.seed, in the file's order. Throws BadData where nothing is
/// left.
Calibration load_calibration(const recipe::CalibrationOptions& options, const recipe::DataOptions& data,
                             const text::Tokenizer& tokenizer);

/// The sequences that load_calibration takes, and such a set of sequences in batches; throws BadData where there are none.
std::vector<text::Sample> calibration_samples(const recipe::CalibrationOptions& options, const recipe::DataOptions& data,
                                              const text::Tokenizer& tokenizer);
Calibration batched(std::span<const text::Sample> samples, const std::string& source);

/// Plain text as llama-imatrix reads it: all of it, or the first so many windows (0: all) of `context` tokens.
Calibration load_text(const std::string& path, std::int64_t context, std::int64_t max_windows,
                      const text::Tokenizer& tokenizer);

}  // namespace temper::ptq
