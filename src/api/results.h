// The table at the end of a run: each model scored on the same held-out rows, against the tuned 16-bit model where there is
// one.
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/loaded_model.h"
#include "eval/results_table.h"
#include "recipe/recipe.h"
#include "text/dataset.h"

namespace temper::api {

/// A model of the table.
struct Contender {
  std::string label;            ///< "QAT q4_0"
  std::filesystem::path path;   ///< Model or run that is evaluated.
  std::string scheme = "none";  ///< Quantized in memory with it.
  enum class Kind { Base, Tuned, Ptq, Qat } kind = Kind::Base;
  double bits_per_weight = 0;  ///< Of the real file; 0: computed for the scheme (or 16-bit) from the tensor table.
  std::uint64_t bytes = 0;
};

/// Scores every contender on `samples`; the base stands among them. The one of kind Tuned is the reference of KLD and top-1
/// agreement and, together with one of kind Ptq, of what each Qat recovered.
std::vector<eval::ResultRow> score_contenders(const ExecContext& ctx, std::span<const Contender> contenders,
                                              std::span<const text::Sample> samples, const recipe::EvalOptions& options);

}  // namespace temper::api
