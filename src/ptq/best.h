// The best of several ways of quantizing after training, judged by the divergence from the 16-bit model on data that no way
// was fit to.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "eval/compare.h"
#include "ptq/calibration.h"
#include "ptq/imatrix.h"
#include "ptq/way.h"

namespace temper::ptq {

/// One way that was tried.
struct Trial {
  std::string way;
  eval::Estimate kld;   ///< Nats per labelled token.
  std::string skipped;  ///< Why it does not serve this scheme; empty: it was measured.
};

struct Best {
  Way way;
  std::unique_ptr<eval::LoadedModel> model;  ///< With its codes.
  std::string how;                           ///< One line: what was done.
  std::vector<Trial> trials;                 ///< In the order tried; of a single way, without a figure.
};

/// A line for each way of `trials`, the chosen one marked; a list of objects: `way`, `kld`, `kld_ci`, or `skipped`.
std::string to_text(const Best& best);
nlohmann::ordered_json to_json(const Best& best);

/// No way that was tried serves the scheme.
class NoWay : public BadRecipe {
 public:
  using BadRecipe::BadRecipe;
};

class Chooser {
 public:
  /// `reference`: the model that recipe.model names, in 16 bits. Ways are fit to `fit` (null: none of them looks at data)
  /// and judged on `choice`. All must outlive this.
  Chooser(const ExecContext& ctx, const recipe::Recipe& recipe, eval::LoadedModel& reference, const Calibration* fit,
          std::span<const text::Sample> choice);

  /// The model in a scheme by whichever of `ways` ends nearest to the reference; the first of equals. One model's
  /// codes are held at a time, and those of the chosen made once more where another was tried after it. A way that refuses
  /// the scheme (BadRecipe, Unsupported) is noted; throws NoWay, with their reasons, if all do.
  Best best(const std::string& scheme, std::span<const Way> ways);

 private:
  struct Made {
    std::unique_ptr<eval::LoadedModel> model;
    std::string how;
  };
  Made make(const std::string& scheme, const Way& way);
  Made attempt(const std::string& scheme, const Way& way, Trial& trial);
  eval::Estimate divergence(const std::string& what, eval::LoadedModel& model) const;
  const ImportanceMatrix* importance();

  const ExecContext& ctx_;
  const recipe::Recipe& recipe_;
  eval::LoadedModel& reference_;
  const Calibration* fit_;
  std::span<const text::Sample> choice_;
  std::optional<ImportanceMatrix> importance_;  ///< Measured once for all schemes.
};

}  // namespace temper::ptq
