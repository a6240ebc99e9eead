// What verbs that judge number formats measure on.
#pragma once

#include <string>
#include <vector>

#include "recipe/recipe.h"
#include "text/dataset.h"
#include "text/tokenizer.h"

namespace temper::api {

struct MeasuredSamples {
  std::vector<text::Sample> samples;
  std::string how;  ///< One line: windows of a text, or rows of a file.
  bool text = false;
};

/// The windows of recipe.eval.text, or the rows of recipe.data.path; the first recipe.eval.rows of them (0: `default_rows`;
/// 0 again: all).
MeasuredSamples measured_samples(const Recipe& recipe, const text::Tokenizer& tokenizer, std::int64_t default_rows);

}  // namespace temper::api
