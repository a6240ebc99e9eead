#include "ptq/best.h"

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

Best Chooser::best(const std::string& scheme, std::span<const Way> ways) {
  Best best;
  double least = 0;
  std::string reasons;
  for (const Way& way : ways) {
    Trial& trial = best.trials.emplace_back(Trial{way.name, {}, {}});
    Made made;
    try {
      made = make(scheme, way);
    } catch (const BadRecipe& error) {
      trial.skipped = error.what();
    } catch (const Unsupported& error) {
      trial.skipped = error.what();
    }
    if (!made.model) {
      log_warning("{}: {} is left out: {}", scheme, way.name, trial.skipped);
      reasons += fmt::format("\n{}: {}", way.name, trial.skipped);
      continue;
    }
    if (ways.size() > 1) {
      eval::CompareOptions options;
      options.bootstrap = {recipe_.eval.bootstrap, static_cast<std::uint64_t>(recipe_.eval.seed)};
      options.progress = fmt::format("{} ({})", scheme, way.name);
      trial.kld = eval::compare(ctx_, made.model->transformer(), reference_.transformer(), choice_, options).kld;
    }
    if (best.model && !(trial.kld.value < least)) continue;
    least = trial.kld.value;
    best.way = way;
    best.model = std::move(made.model);
    best.how = std::move(made.how);
  }
  if (!best.model) throw BadRecipe("scheme {}: no way of quantizing serves it:{}", scheme, reasons);
  return best;
}

}  // namespace temper::ptq
