// temper plan, and quantize under a budget.
#include "api/plan.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "api/chart.h"
#include "api/engine.h"
#include "api/measured_samples.h"
#include "base/atomic_file.h"
#include "base/log.h"
#include "export/export.h"
#include "ptq/sensitivity.h"
#include "recipe/sizes.h"

namespace temper::api {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kDefaultWindows = 8;  // of 512 tokens: intervals of some per cent, at a few minutes for a small model
constexpr int kFrontierPoints = 12;

std::vector<const quant::Codec*> codecs_named(const std::vector<std::string>& names) {
  if (names.empty()) return ptq::default_types();
  std::vector<const quant::Codec*> out;
  for (const std::string& name : names) {
    const quant::Codec* codec = quant::find_codec(name);
    if (!codec) codec = quant::gguf_codec(name);
    if (!codec || !codec->encodes())
      throw BadRecipe("quant.types: \"{}\" is no number format that temper writes; `temper schemes` lists them", name);
    out.push_back(codec);
  }
  return out;
}

/// An allocation, and what it was measured to cost.
struct Point {
  ptq::Allocation allocation;
  std::optional<eval::Comparison> measured = {};
};

/// A model, what its tensors cost in each format, and the best allocations.
class Planner {
 public:
  Planner(const ExecContext& ctx, const Recipe& recipe)
      : ctx_(ctx),
        recipe_(recipe),
        reader_(model::CheckpointReader::open(recipe.model.path)),
        measured_(measured_samples(recipe, text::Tokenizer::load(recipe.model.path).with_rows(reader_.arch().vocab_size),
                                   kDefaultWindows)),
        sensitivity_(costs()),
        base_(reader_, ctx.compute, model::Hold::Expanded),
        frontier_(sensitivity_.choices()) {}

  const ptq::Sensitivity& sensitivity() const { return sensitivity_; }
  /// The text, how finely costs were measured on it, and what that took.
  std::string how() const {
    const bool alone = sensitivity_.layer_groups == table().layers();
    return fmt::format(
        "{}; costs of {} in each format: {:.0f} forward passes, {:.0f} s", measured_.how,
        alone ? "every matrix" : fmt::format("matrices of a kind in {} groups of layers", sensitivity_.layer_groups),
        sensitivity_.passes, sensitivity_.seconds);
  }
  std::string model() const { return reader_.formats(); }
  const model::TensorTable& table() const { return reader_.table(); }

  std::uint64_t smallest() const { return frontier_.smallest() + sensitivity_.fixed_bytes; }
  std::uint64_t largest() const { return frontier_.largest() + sensitivity_.fixed_bytes; }
  std::uint64_t bytes_of(const ptq::Allocation& a) const { return a.bytes + sensitivity_.fixed_bytes; }
  double bits_of(const ptq::Allocation& a) const { return sensitivity_.bits(bytes_of(a)); }

  ptq::Allocation within(std::uint64_t bytes) const {
    if (bytes < smallest())
      throw BadRecipe("a budget of {:.1f} MB ({:.2f} bits/weight): the smallest of these formats take {:.1f} MB ({:.2f})",
                      static_cast<double>(bytes) / 1e6, sensitivity_.bits(bytes), static_cast<double>(smallest()) / 1e6,
                      sensitivity_.bits(smallest()));
    return frontier_.within(bytes - sensitivity_.fixed_bytes);
  }
  std::uint64_t budget() const {
    if (!recipe_.quant.size.empty()) return recipe::parse_size(recipe_.quant.size, "quant.size");
    return static_cast<std::uint64_t>(recipe_.quant.bits * static_cast<double>(sensitivity_.weights) / 8.0);
  }

  std::vector<const quant::Codec*> codecs(const ptq::Allocation& a) const {
    return ptq::codecs_of(sensitivity_, a, reader_.table().size());
  }
  /// The best mix within so many bytes, measured; or one format for all where that is measured to be better.
  Point choose(std::uint64_t bytes) {
    Point best{within(bytes)};
    best.measured = measure(best.allocation);
    std::optional<ptq::Allocation> rival;
    for (const quant::Codec* codec : options().codecs) {
      ptq::Allocation one = ptq::uniform(sensitivity_, table(), *codec);
      if (bytes_of(one) <= bytes && (!rival || one.cost < rival->cost)) rival = std::move(one);
    }
    if (!rival || rival->chosen == best.allocation.chosen) return best;
    eval::Comparison measured = measure(*rival);
    if (measured.kld.value < best.measured->kld.value) {
      log_info("{} throughout is measured to be better than the best sum of costs, {}", mix(*rival), mix(best.allocation));
      best = {*std::move(rival), std::move(measured)};
    }
    return best;
  }
  eval::Comparison measure(const ptq::Allocation& a) {
    return ptq::measure_mix(ctx_, base_, reader_.arch(), codecs(a), measured_.samples,
                            {recipe_.eval.bootstrap, static_cast<std::uint64_t>(recipe_.eval.seed)});
  }
  /// The allocation as a scheme of one's own, one rule for each tensor: what `train` takes as quant.scheme.
  std::string scheme(const ptq::Allocation& a) const {
    std::string out = "none";
    for (std::size_t t = 0; t < a.chosen.size(); ++t) {
      std::string_view name = table()[sensitivity_.tensors[t].tensor].hf_name;
      if (name.ends_with(".weight")) name.remove_suffix(std::string_view(".weight").size());
      if (const quant::Codec* codec = sensitivity_.tensors[t].types[a.chosen[t]].codec)
        out += fmt::format("; {}: {}", name, codec->name());
    }
    return out;
  }
  /// "12 q4_0, 80 q5_0, …": how many tensors are held in what.
  std::string mix(const ptq::Allocation& a) const {
    std::map<std::string, int> counts;
    for (std::size_t t = 0; t < a.chosen.size(); ++t) {
      const quant::Codec* codec = sensitivity_.tensors[t].types[a.chosen[t]].codec;
      ++counts[codec ? std::string(codec->name()) : "16-bit"];
    }
    std::string out;
    for (const auto& [name, count] : counts) out += fmt::format("{}{} {}", out.empty() ? "" : ", ", count, name);
    return out;
  }

 private:
  /// In f32: whatever is changed in a bf16 network, its roundings fall otherwise, which alone is about 3e-4 nats.
  ptq::Sensitivity costs() const {
    ExecContext exact = ctx_;
    exact.compute = DType::F32;
    model::BaseWeights base(reader_, exact.compute, model::Hold::Expanded);
    return ptq::cached_sensitivity(exact, base, reader_.arch(), measured_.samples, options(), cache());
  }
  ptq::SensitivityOptions options() const {
    ptq::SensitivityOptions options;
    options.codecs = codecs_named(recipe_.quant.types);
    options.minutes = recipe_.quant.sensitivity_minutes;
    return options;
  }
  /// Beside the output, by the model's name.
  std::filesystem::path cache() const {
    const std::filesystem::path folder = recipe_.out.empty() ? "." : std::filesystem::path(recipe_.out).parent_path();
    auto name = std::filesystem::path(recipe_.model.path).filename();
    if (name.empty()) name = std::filesystem::path(recipe_.model.path).parent_path().filename();
    return folder / (name.string() + ".sensitivity.json");
  }

  const ExecContext& ctx_;
  const Recipe& recipe_;
  model::CheckpointReader reader_;
  MeasuredSamples measured_;
  ptq::Sensitivity sensitivity_;
  model::BaseWeights base_;
  ptq::Frontier frontier_;
};

/// Allocations along the frontier up to about 9 bits, and the budget if one is given; three of them, or it, are measured.
std::vector<Point> frontier_points(Planner& planner, const Recipe& recipe) {
  const std::uint64_t low = planner.smallest();
  const double bits = static_cast<double>(planner.sensitivity().weights) / 8.0;
  const std::uint64_t high = std::min(planner.largest(), std::max(low, static_cast<std::uint64_t>(9.0 * bits)));
  std::vector<Point> points;
  points.reserve(kFrontierPoints + 1);
  for (int i = 0; i < kFrontierPoints; ++i)
    points.push_back({planner.within(low + (high - low) * static_cast<std::uint64_t>(i) / (kFrontierPoints - 1)), {}});
  if (has_budget(recipe)) {
    points.push_back(planner.choose(planner.budget()));
  } else {
    for (const std::size_t i : {1u, 4u, 7u}) points[i] = planner.choose(planner.bytes_of(points[i].allocation));
  }
  std::ranges::stable_sort(points, {}, [](const Point& p) { return p.allocation.bytes; });
  return points;
}

std::string interval(const eval::Estimate& e) { return fmt::format("{:.5f} [{:.5f}, {:.5f}]", e.value, e.low, e.high); }

}  // namespace

Outcome plan(const Recipe& recipe) {
  if (recipe.train.plan) return train(recipe);
  const Engine engine(recipe.runtime);
  Planner planner(engine.context(), recipe);
  const std::vector<Point> points = frontier_points(planner, recipe);
  Outcome out;
  out.text = fmt::format("{}; {}\n{:>10} {:>7} {:>13}  {:<30} {}\n", planner.model(), planner.how(), "size", "bits/w",
                         "predicted KLD", "measured KLD [95 % CI]", "tensors");
  Json rows = Json::array();
  Chart chart{fmt::format("{}: best mixes of formats", planner.model()),
              "size of all tensors, MB",
              "KL divergence from 16-bit, nats a token",
              {},
              {}};
  for (const Point& p : points) {
    const double megabytes = static_cast<double>(planner.bytes_of(p.allocation)) / 1e6;
    Json row = {{"bytes", planner.bytes_of(p.allocation)},
                {"bits_per_weight", planner.bits_of(p.allocation)},
                {"predicted_kld", p.allocation.cost}};
    chart.curve.emplace_back(megabytes, p.allocation.cost);
    if (p.measured) {
      const eval::Estimate& kld = p.measured->kld;
      row["kld"] = kld.value;
      row["kld_ci"] = {kld.low, kld.high};
      chart.points.push_back({fmt::format("{:.2f} bits, measured", planner.bits_of(p.allocation)),
                              megabytes,
                              kld.value,
                              {{kld.low, kld.high}}});
    }
    out.text += fmt::format("{:>7.1f} MB {:>7.3f} {:>13.5f}  {:<30} {}\n", megabytes, planner.bits_of(p.allocation),
                            p.allocation.cost, p.measured ? interval(p.measured->kld) : "", planner.mix(p.allocation));
    rows.push_back(std::move(row));
  }
  if (!recipe.compare.chart.empty()) write_file(recipe.compare.chart, to_svg(chart));
  out.json = Json{{"model", planner.model()}, {"measured", planner.how()}, {"frontier", rows}}.dump();
  return out;
}

Outcome quantize_within(const ExecContext& ctx, const Recipe& recipe) {
  std::string text;
  Json json;
  std::vector<const quant::Codec*> codecs;
  std::string scheme;
  {
    Planner planner(ctx, recipe);
    const Point chosen = planner.choose(planner.budget());
    const auto& [allocation, measurement] = chosen;
    const eval::Comparison& measured = *measurement;
    codecs = planner.codecs(allocation);
    scheme = planner.scheme(allocation);
    text = fmt::format("{:.3f} bits/weight: {}\nKLD from 16-bit, nats a token: predicted {:.5f}, measured {}; {}\n",
                       planner.bits_of(allocation), planner.mix(allocation), allocation.cost, interval(measured.kld),
                       planner.how());
    json = {{"predicted_kld", allocation.cost},
            {"kld", measured.kld.value},
            {"kld_ci", {measured.kld.low, measured.kld.high}},
            {"measured", planner.how()}};
  }
  const exporter::ExportReport report = exporter::quantize_mix(ctx, recipe, codecs);
  const std::string recipe_path = recipe.out + ".recipe.yaml";
  write_file(recipe_path, fmt::format("# The mix of formats of {}: temper train {} …\nquant:\n  scheme: \"{}\"\n",
                                      report.path, recipe_path, scheme));
  text += fmt::format("the mix as a recipe: {}\n", recipe_path);
  json["recipe"] = recipe_path;
  json.update(exporter::to_json(report));
  return {exporter::to_text(report) + text, json.dump()};
}

}  // namespace temper::api
