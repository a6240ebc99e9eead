// Ways of quantizing after training, by name: a method of rounding, and a transform of the weights before it or none.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "quant/scheme.h"
#include "recipe/recipe.h"

namespace temper::ptq {

struct Way {
  std::string name;  ///< "rtn", "mse", "importance", "gptq", "awq", "awq+gptq", "smoothquant", "smoothquant+gptq"
  recipe::QuantMethod method;
  recipe::QuantTransform transform;

  /// True if it looks at what calibration data gives.
  bool looks_at_data() const;
};

/// Throws BadRecipe, listing the names, for another.
const Way& way_of(std::string_view name);

/// Those worth trying for a scheme: rounding to nearest, clipped ranges where its format has any, importance where the
/// format is GGUF's, GPTQ; AWQ's scales up to 5 bits a weight; SmoothQuant's where the scheme or a rule of
/// it rounds activations.
std::vector<Way> ways_for(const quant::Scheme& scheme);

}  // namespace temper::ptq
