// What `temper data inspect` prints: rows as the loss sees them.
#pragma once

#include <string>

#include "text/dataset.h"

namespace temper::text {

struct InspectOptions {
  bool colour = true;  ///< ANSI: labelled text in green, special tokens bold. Else labelled text stands in ⟦brackets⟧.
  bool ids = false;    ///< Also a table of tokens: index, id, mask, text.
  std::int64_t rows = 3;  ///< Samples shown.
};

/// One sample's text with its mask.
std::string render_sample(const Sample& sample, const Tokenizer& tokenizer, const InspectOptions& options);

/// The report, then the first samples.
std::string inspect_dataset(const Dataset& dataset, const Tokenizer& tokenizer, const InspectOptions& options);

}  // namespace temper::text
