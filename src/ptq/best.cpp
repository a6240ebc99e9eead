#include "ptq/best.h"

#include <cmath>
#include <limits>

#include "base/log.h"
#include "base/progress.h"
#include "ptq/imatrix_collect.h"
#include "ptq/quantizer.h"

namespace temper::ptq {

std::string to_text(const Best& best) {
  std::string out = "way                 KLD, nats/token [95 % CI]\n";
  for (const Trial& trial : best.trials) {
    const std::string figure = trial.skipped.empty()
                                   ? fmt::format("{:.5f} [{:.5f}, {:.5f}]", trial.kld.value, trial.kld.low, trial.kld.high)
                                   : "left out: " + trial.skipped;
    out += fmt::format("{:<18}  {}{}\n", trial.way, figure, trial.way == best.way.name ? "  (chosen)" : "");
  }
  return out;
}

nlohmann::ordered_json to_json(const Best& best) {
  nlohmann::ordered_json out = nlohmann::ordered_json::array();
  for (const Trial& trial : best.trials) {
    nlohmann::ordered_json json = {{"way", trial.way}};
    if (trial.skipped.empty()) {
      json["kld"] = trial.kld.value;
      json["kld_ci"] = {trial.kld.low, trial.kld.high};
    } else {
      json["skipped"] = trial.skipped;
    }
    out.push_back(std::move(json));
  }
  return out;
}

Chooser::Chooser(const ExecContext& ctx, const recipe::Recipe& recipe, eval::LoadedModel& reference, const Calibration* fit,
                 std::span<const text::Sample> choice)
    : ctx_(ctx), recipe_(recipe), reference_(reference), fit_(fit), choice_(choice) {}

const ImportanceMatrix* Chooser::importance() {
  if (!importance_) {
    status("measuring importance");
    importance_ = collect_importance(ctx_, reference_.transformer(), reference_.reader().table(), *fit_,
                                     static_cast<std::size_t>(recipe_.calibration.memory) << 20);
  }
  return &*importance_;
}

Chooser::Made Chooser::make(const std::string& scheme, const Way& way) {
  recipe::Recipe recipe = recipe_;
  recipe.quant.scheme = scheme;
  recipe.quant.method = way.method;
  recipe.quant.transform = way.transform;
  const bool weighs = way.method == recipe::QuantMethod::Importance || way.method == recipe::QuantMethod::Mse;
  Quantizer quantizer(recipe, fit_, fit_ && weighs ? importance() : nullptr);
  const eval::CodeMaker maker = quantizer.maker();
  return {eval::LoadedModel::open(ctx_, reference_.path(), scheme, &maker), quantizer.description()};
}

/// The model by a way, or none, and why in the trial.
Chooser::Made Chooser::attempt(const std::string& scheme, const Way& way, Trial& trial) {
  try {
    return make(scheme, way);
  } catch (const BadRecipe& error) {
    trial.skipped = error.what();
  } catch (const Unsupported& error) {
    trial.skipped = error.what();
  }
  log_warning("{}: {} is left out: {}", scheme, way.name, trial.skipped);
  return {};
}

eval::Estimate Chooser::divergence(const std::string& what, eval::LoadedModel& model) const {
  eval::CompareOptions options;
  options.bootstrap = {recipe_.eval.bootstrap, static_cast<std::uint64_t>(recipe_.eval.seed)};
  options.progress = what;
  return eval::compare(ctx_, model.transformer(), reference_.transformer(), choice_, options).kld;
}

Best Chooser::best(const std::string& scheme, std::span<const Way> ways) {
  Best best;
  Made made;  // by the way tried last
  const Way* chosen = nullptr;
  double least = std::numeric_limits<double>::infinity();
  std::string reasons;
  for (const Way& way : ways) {
    Trial& trial = best.trials.emplace_back(Trial{way.name, {}, {}});
    made = {};  // before the next one is made: one model's codes at a time
    made = attempt(scheme, way, trial);
    if (made.model && ways.size() > 1) {
      trial.kld = divergence(fmt::format("{} ({})", scheme, way.name), *made.model);
      if (!std::isfinite(trial.kld.value)) trial.skipped = "its divergence is not finite";
    }
    if (!trial.skipped.empty()) reasons += fmt::format("\n{}: {}", way.name, trial.skipped);
    if (!trial.skipped.empty() || !(trial.kld.value < least)) continue;
    least = trial.kld.value;
    chosen = &way;
  }
  if (!chosen) throw NoWay("scheme {}: no way of quantizing serves it:{}", scheme, reasons);
  if (chosen != &ways.back()) {
    made = {};
    made = make(scheme, *chosen);  // the same bits again
  }
  best.way = *chosen;
  best.model = std::move(made.model);
  best.how = std::move(made.how);
  return best;
}

}  // namespace temper::ptq
