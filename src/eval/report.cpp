// Reports of `temper eval` as JSON and as text.
#include "eval/evaluate.h"

namespace temper::eval {
namespace {

using nlohmann::ordered_json;

void put(ordered_json& json, const std::string& key, const Estimate& estimate) {
  json[key] = estimate.value;
  json[key + "_ci"] = {estimate.low, estimate.high};
}

/// Figures under `prefix`; keys without a prefix are those of rows.
void put_figures(ordered_json& json, const std::string& prefix, const char* unit, const Figures& figures) {
  put(json, prefix + "nll", figures.score.nll);
  json[prefix + "tokens"] = figures.score.tokens;
  json[prefix + unit] = figures.score.rows.size();
  if (!figures.comparison) return;
  const Comparison& c = *figures.comparison;
  put(json, prefix + "reference_nll", c.reference_nll);
  put(json, prefix + "nll_difference", c.nll_difference);
  put(json, prefix + "kld", c.kld);
  json[prefix + "max_kld"] = c.max_kld;
  put(json, prefix + "top1_agreement", c.top1_agreement);
}

std::string line(std::string_view name, const std::string& value) { return fmt::format("{:<22}{}\n", name, value); }

std::string with_interval(const Estimate& e, int digits, std::string_view unit, double factor = 1.0) {
  return fmt::format("{:.{}f} [{:.{}f}, {:.{}f}]{}", factor * e.value, digits, factor * e.low, digits, factor * e.high,
                     digits, unit);
}

std::string comparison_text(const Comparison& c) {
  return line("  reference NLL", with_interval(c.reference_nll, 4, " nats per token")) +
         line("  NLL difference", with_interval(c.nll_difference, 4, " nats per token, paired")) +
         line("  KLD", with_interval(c.kld, 5, fmt::format(" nats per token (largest {:.3f})", c.max_kld))) +
         line("  top-1 agreement", with_interval(c.top1_agreement, 2, " %", 100.0));
}

}  // namespace

ordered_json to_json(const EvalReport& report) {
  ordered_json json;
  json["model"] = report.model;
  if (!report.reference.empty()) json["reference"] = report.reference;
  json["compute"] = report.compute;
  if (report.weight_bytes > 0) {
    json["weight_bytes"] = report.weight_bytes;
    json["bits_per_weight"] = report.bits_per_weight;
  }
  if (report.data) put_figures(json, "", "rows", *report.data);
  if (report.text) {
    const TextFigures& text = *report.text;
    put(json, "perplexity", text.perplexity);
    if (text.reference_perplexity) put(json, "reference_perplexity", *text.reference_perplexity);
    put_figures(json, "text_", "windows", text);
    const bool llama = text.windows.windows == recipe::Windows::LlamaPerplexity;
    json["windows"] = {{"kind", llama ? "llama-perplexity" : "stride"},
                       {"count", text.windows.count},
                       {"context", text.windows.context},
                       {"stride", text.windows.stride},
                       {"bos", text.windows.bos},
                       {"tokens", text.windows.text_tokens},
                       {"scored_tokens", text.windows.scored_tokens},
                       {"how", text.windows.how()}};
  }
  if (report.choices) {
    put(json, "accuracy", report.choices->accuracy);
    put(json, "accuracy_normalized", report.choices->accuracy_normalized);
    json["chance"] = report.choices->chance;
    json["items"] = report.choices->items;
  }
  json["bootstrap_resamples"] = report.bootstrap;
  json["seconds"] = report.seconds;
  return json;
}

std::string to_text(const EvalReport& report) {
  std::string out = line("model", report.model);
  if (!report.reference.empty()) out += line("reference", report.reference);
  out += line("products in", report.compute);
  if (report.weight_bytes > 0)
    out += line("weights", fmt::format("{:.1f} MB, {:.2f} bits/weight", static_cast<double>(report.weight_bytes) * 1e-6,
                                       report.bits_per_weight));
  if (report.data) {
    const Score& score = report.data->score;
    out += line("rows", fmt::format("{} with {} labelled tokens", score.rows.size(), score.tokens));
    out += line("  answer NLL", with_interval(score.nll, 4, " nats per token"));
    if (report.data->comparison) out += comparison_text(*report.data->comparison);
  }
  if (report.text) {
    out += line("text", report.text->windows.how());
    out += line("  perplexity", with_interval(report.text->perplexity, 4, ""));
    if (report.text->reference_perplexity)
      out += line("  of the reference", with_interval(*report.text->reference_perplexity, 4, ""));
    if (report.text->comparison) out += comparison_text(*report.text->comparison);
  }
  if (report.choices) {
    const ChoiceReport& choices = *report.choices;
    out += line("choices", fmt::format("{} items (chance {:.1f} %)", choices.items, 100.0 * choices.chance));
    out += line("  accuracy", with_interval(choices.accuracy, 1, " %", 100.0));
    out += line("  length-normalised", with_interval(choices.accuracy_normalized, 1, " % (per byte of the choice)", 100.0));
  }
  out += fmt::format("95 % intervals in brackets: {} bootstrap resamples; {:.1f} s\n", report.bootstrap, report.seconds);
  return out;
}

}  // namespace temper::eval
