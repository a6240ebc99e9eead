// temper compare: number formats side by side.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "api/chart.h"
#include "api/engine.h"
#include "api/measured_samples.h"
#include "api/results.h"
#include "base/atomic_file.h"
#include "base/log.h"
#include "base/progress.h"
#include "eval/generate.h"
#include "eval/perplexity.h"
#include "model/static_ranges.h"
#include "ptq/best.h"
#include "temper/temper.h"

namespace temper::api {
namespace {

using Json = nlohmann::ordered_json;
using eval::Estimate;
using eval::LoadedModel;

/// A way of quantizing, measured.
struct Line {
  std::string scheme, method;
  std::uint64_t bytes = 0, memory = 0;
  double bits = 0;
  Estimate nll, kld, top1;
  double prompt_speed = 0, speed = 0;  ///< Tokens per second; 0: not measured.
  Json ways;                           ///< All that were tried, where there were several.
};

/// Prompt and generation, once, at the start of the measured text.
void measure_speed(const ExecContext& ctx, LoadedModel& model, std::span<const std::int32_t> text, std::int64_t tokens,
                   Line& line) {
  if (tokens == 0) return;
  eval::Generator generator(ctx, model, static_cast<std::int64_t>(text.size()) + tokens + 1);
  eval::GenerationOptions options;
  options.sampling.temperature = 0;
  options.max_tokens = tokens;
  const eval::Generation generation = generator.generate(text, options);
  line.prompt_speed = static_cast<double>(generation.prompt_tokens) / std::max(generation.prompt_seconds, 1e-9);
  line.speed = static_cast<double>(generation.ids.size()) / std::max(generation.seconds, 1e-9);
}

/// Tensors as they are held for generation, and the cache of a context.
std::uint64_t memory_of(const ExecContext& ctx, const model::ArchSpec& arch, std::uint64_t tensors, std::int64_t context) {
  return tensors + static_cast<std::uint64_t>(2 * arch.num_layers * arch.kv_size() * context) * dtype_size(ctx.compute);
}

/// The ways to try for a scheme.
std::vector<ptq::Way> ways_of(const Recipe& recipe, const std::string& scheme) {
  std::vector<ptq::Way> ways;
  for (const std::string& name : recipe.compare.methods) {
    if (name == "best") return ptq::ways_for(quant::scheme(scheme));
    ways.push_back(ptq::way_of(name));
  }
  return ways;
}

/// The samples, cut: ways of quantizing are fit to the first part and chosen on the second, and what is shown is measured on
/// the third, which no choice has seen. A part that nothing needs is empty.
struct Parts {
  std::span<const text::Sample> fit, choice, shown;
  std::string how;
};

Parts cut(std::span<const text::Sample> all, bool fit, bool choice) {
  const std::size_t parts = 1 + (fit ? 1 : 0) + (choice ? 1 : 0), share = all.size() / parts;
  if (share == 0)
    throw BadData("expected {} windows or rows (to fit, to choose, to report), found {}: give more data, or fewer methods",
                  parts, all.size());
  Parts out;
  out.fit = all.first(fit ? share : 0);
  out.choice = all.subspan(out.fit.size(), choice ? share : 0);
  out.shown = all.subspan(out.fit.size() + out.choice.size());
  if (fit) out.how += fmt::format("; fit to the first {}", out.fit.size());
  if (choice) out.how += fmt::format("; ways chosen on {} more", out.choice.size());
  if (parts > 1) out.how += fmt::format("; figures of the other {}", out.shown.size());
  return out;
}

class Comparer {
 public:
  Comparer(const ExecContext& ctx, const Recipe& recipe)
      : ctx_(ctx),
        recipe_(recipe),
        reference_(LoadedModel::open(ctx, recipe.model.run.empty() ? recipe.model.path : recipe.model.run)),
        measured_(measured_samples(recipe, reference_->tokenizer(), 0)) {
    bool fit = false, choice = false;
    for (const std::string& scheme : recipe.compare.schemes) {
      const std::vector<ptq::Way> ways = ways_of(recipe, scheme);
      choice |= ways.size() > 1;
      fit |= std::ranges::any_of(ways, &ptq::Way::looks_at_data) ||
             model::needs_ranges(reference_->reader().table(), quant::scheme(scheme));
    }
    parts_ = cut(measured_.samples, fit, choice);
    if (fit) fit_ = ptq::batched(parts_.fit, measured_.how);
    chooser_.emplace(ctx, recipe, *reference_, fit ? &fit_ : nullptr, parts_.choice);
    const std::vector<std::int32_t>& ids = parts_.shown.front().ids;
    prompt_.assign(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(ids.size(), 256)));
  }

  std::vector<Line> run() {
    std::vector<Line> lines;
    std::string reasons;
    for (const std::string& scheme : recipe_.compare.schemes) {
      try {
        lines.push_back(measure(scheme));
      } catch (const ptq::NoWay& nothing) {  // the other schemes' lines are worth having
        log_warning("{}", nothing.what());
        reasons += fmt::format("{}{}", reasons.empty() ? "" : "\n", nothing.what());
      }
    }
    if (lines.empty()) throw BadRecipe("{}", reasons);
    lines.insert(lines.begin(), sixteen_bit());
    return lines;
  }

  std::string how() const { return measured_.how + parts_.how; }
  bool text() const { return measured_.text; }
  std::string model() const { return reference_->description(); }

 private:
  Line measure(const std::string& scheme) {
    ptq::Best best = chooser_->best(scheme, ways_of(recipe_, scheme));
    eval::CompareOptions options;
    options.bootstrap = {recipe_.eval.bootstrap, static_cast<std::uint64_t>(recipe_.eval.seed)};
    options.progress = fmt::format("{} ({})", scheme, best.way.name);
    const eval::Comparison c =
        eval::compare(ctx_, best.model->transformer(), reference_->transformer(), parts_.shown, options);
    reference_nll_ = c.reference_nll;
    Line line{scheme, best.way.name, stored_bytes(*best.model), 0, 0, c.nll, c.kld, c.top1_agreement, 0, 0, {}};
    if (best.trials.size() > 1) line.ways = ptq::to_json(best);
    finish(*best.model, line);
    return line;
  }

  Line sixteen_bit() {
    Line line{"16-bit", "", stored_bytes(*reference_), 0, 0, reference_nll_, {}, {1, 1, 1}, 0, 0, {}};
    finish(*reference_, line);
    return line;
  }

  void finish(LoadedModel& model, Line& line) {
    line.bits = 8.0 * static_cast<double>(line.bytes) / static_cast<double>(model.reader().weight_count());
    line.memory = memory_of(ctx_, model.arch(), line.bytes, recipe_.eval.context);
    measure_speed(ctx_, model, prompt_, recipe_.compare.speed_tokens, line);
  }

  const ExecContext& ctx_;
  const Recipe& recipe_;
  std::unique_ptr<LoadedModel> reference_;
  MeasuredSamples measured_;
  Parts parts_;
  ptq::Calibration fit_;
  std::optional<ptq::Chooser> chooser_;
  std::vector<std::int32_t> prompt_;
  Estimate reference_nll_;
};

std::string megabytes(std::uint64_t bytes) { return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6); }

std::string to_text(const std::vector<Line>& lines, bool text) {
  std::string out = fmt::format("{:<16} {:<16} {:>10} {:>7} {:>10}  {:<26} {:<30} {:>8} {:>10} {:>10}\n", "scheme", "method",
                                "size", "bits/w", "memory", text ? "perplexity [95 % CI]" : "answer NLL [95 % CI]",
                                "KLD, nats/token [95 % CI]", "top-1", "prompt t/s", "new t/s");
  for (const Line& l : lines) {
    const Estimate loss = text ? eval::perplexity_of(l.nll) : l.nll;
    const auto speed = [](double value) { return value > 0 ? fmt::format("{:.1f}", value) : std::string("–"); };
    out += fmt::format(
        "{:<16} {:<16} {:>10} {:>7.3f} {:>10}  {:<26} {:<30} {:>6.2f} % {:>10} {:>10}\n", l.scheme, l.method,
        megabytes(l.bytes), l.bits, megabytes(l.memory),
        fmt::format("{:.4f} [{:.4f}, {:.4f}]", loss.value, loss.low, loss.high),
        l.method.empty() ? std::string() : fmt::format("{:.5f} [{:.5f}, {:.5f}]", l.kld.value, l.kld.low, l.kld.high),
        100 * l.top1.value, speed(l.prompt_speed), speed(l.speed));
  }
  return out;
}

Json to_json(const std::vector<Line>& lines, bool text) {
  Json out = Json::array();
  for (const Line& l : lines) {
    Json json = {{"scheme", l.scheme},
                 {"method", l.method},
                 {"bytes", l.bytes},
                 {"bits_per_weight", l.bits},
                 {"memory_bytes", l.memory}};
    const auto put = [&](const char* key, const Estimate& e) {
      json[key] = e.value;
      json[std::string(key) + "_ci"] = {e.low, e.high};
    };
    put("nll", l.nll);
    if (text) put("perplexity", eval::perplexity_of(l.nll));
    put("kld", l.kld);
    put("top1_agreement", l.top1);
    if (l.speed > 0) {
      json["prompt_tokens_per_s"] = l.prompt_speed;
      json["tokens_per_s"] = l.speed;
    }
    if (!l.ways.is_null()) json["ways"] = l.ways;
    out.push_back(std::move(json));
  }
  return out;
}

}  // namespace

Outcome compare(const Recipe& recipe) {
  const Engine engine(recipe.runtime);
  for (const std::string& scheme : recipe.compare.schemes) quant::scheme(scheme);  // refuses before any work
  if (recipe.compare.schemes.empty() || recipe.compare.methods.empty())
    throw BadRecipe("compare.schemes and compare.methods: expected at least one of each");
  Comparer comparer(engine.context(), recipe);
  const std::vector<Line> lines = comparer.run();
  if (!recipe.compare.chart.empty()) {
    Chart chart{fmt::format("{}: size and divergence", comparer.model()),
                "size of all tensors, MB",
                "KL divergence from 16-bit, nats a token",
                {},
                {}};
    for (const Line& l : lines)
      if (!l.method.empty())
        chart.points.push_back({l.scheme, static_cast<double>(l.bytes) / 1e6, l.kld.value, {{l.kld.low, l.kld.high}}});
    write_file(recipe.compare.chart, to_svg(chart));
  }
  const Json json = {
      {"model", comparer.model()}, {"measured", comparer.how()}, {"schemes", to_json(lines, comparer.text())}};
  return {fmt::format("{}; {}\n{}", comparer.model(), comparer.how(), to_text(lines, comparer.text())), json.dump()};
}

}  // namespace temper::api
