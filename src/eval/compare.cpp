#include "eval/compare.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/parallel.h"
#include "base/progress.h"

namespace temper::eval {
namespace {

std::size_t argmax(std::span<const float> values) {
  return static_cast<std::size_t>(std::ranges::max_element(values) - values.begin());
}

/// Compares two models at chosen rows of a batch; holds the reference's logits of those rows.
void compare_rows(const ExecContext& ctx, model::Transformer& model, model::Transformer& reference,
                  const model::BatchView& batch, std::span<const std::int32_t> rows, std::vector<float>& held,
                  std::span<TokenComparison> out) {
  const std::size_t vocab = static_cast<std::size_t>(model.arch().vocab_size);
  held.resize(rows.size() * vocab);
  reference.logits(ctx, batch, rows, [&](std::size_t first, const TensorView& logits) {
    std::ranges::copy(logits.span<float>(), held.begin() + static_cast<std::ptrdiff_t>(first * vocab));
  });
  model.logits(ctx, batch, rows, [&](std::size_t first, const TensorView& logits) {
    const std::span<const float> values = logits.span<float>();
    parallel_for(logits.rows(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::size_t i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
        const std::int32_t target = batch.targets[static_cast<std::size_t>(rows[first + i])];
        out[first + i] = compare_token(values.subspan(i * vocab, vocab),
                                       std::span<const float>(held).subspan((first + i) * vocab, vocab), target);
      }
    });
  });
}

/// Adds up the tokens of each segment; a row that continues the one before it is added to it.
void add_rows(const text::Batch& batch, std::span<const text::Sample> samples, std::span<const TokenComparison> tokens,
              Comparison& comparison) {
  std::size_t next = 0;
  for (std::size_t s = 0; s < samples.size(); ++s) {
    for (std::int32_t t = batch.segments[s].begin; t < batch.segments[s].end; ++t) {
      if (batch.targets[static_cast<std::size_t>(t)] < 0) continue;
      if (comparison.rows.empty() || comparison.rows.back().row != samples[s].row)
        comparison.rows.push_back({.row = samples[s].row});
      const TokenComparison& token = tokens[next++];
      if (!std::isfinite(token.nll) || !std::isfinite(token.reference_nll))
        throw Diverged("row {}: the NLL is not finite (model {}, reference {})", samples[s].row, token.nll,
                       token.reference_nll);
      RowComparison& row = comparison.rows.back();
      ++row.tokens;
      row.nll += token.nll;
      row.reference_nll += token.reference_nll;
      row.kld += token.kld;
      row.agreed += token.agreed ? 1 : 0;
      ++comparison.tokens;
      comparison.max_kld = std::max(comparison.max_kld, token.kld);
    }
  }
}

template <typename Field>
std::vector<double> column(const Comparison& comparison, Field field) {
  std::vector<double> values;
  values.reserve(comparison.rows.size());
  for (const RowComparison& row : comparison.rows) values.push_back(static_cast<double>(row.*field));
  return values;
}

void estimate(Comparison& comparison, const BootstrapOptions& options) {
  if (comparison.rows.empty()) throw BadData("no labelled tokens to compare on");
  const std::vector<double> tokens = column(comparison, &RowComparison::tokens);
  const std::vector<double> nll = column(comparison, &RowComparison::nll);
  const std::vector<double> reference = column(comparison, &RowComparison::reference_nll);
  comparison.nll = bootstrap_ratio(nll, tokens, options);
  comparison.reference_nll = bootstrap_ratio(reference, tokens, options);
  comparison.nll_difference = bootstrap_difference(nll, reference, tokens, options);
  comparison.kld = bootstrap_ratio(column(comparison, &RowComparison::kld), tokens, options);
  comparison.top1_agreement = bootstrap_ratio(column(comparison, &RowComparison::agreed), tokens, options);
}

}  // namespace

TokenComparison compare_token(std::span<const float> logits, std::span<const float> reference, std::int32_t target) {
  const std::size_t best = argmax(logits), reference_best = argmax(reference);
  const double max = static_cast<double>(logits[best]), reference_max = static_cast<double>(reference[reference_best]);
  // KL = Σ p (log p − log q), where log p = x − lse(x): the denominators are the same for every term, so one pass is enough.
  double sum = 0.0, reference_sum = 0.0, cross = 0.0;
  for (std::size_t v = 0; v < logits.size(); ++v) {
    const double x = static_cast<double>(logits[v]) - max;
    const double y = static_cast<double>(reference[v]) - reference_max;
    const double e = std::exp(y);
    sum += std::exp(x);
    reference_sum += e;
    if (e > 0.0) cross += e * (y - x);
  }
  const std::size_t t = static_cast<std::size_t>(target);
  TokenComparison result;
  result.nll = std::log(sum) + max - static_cast<double>(logits[t]);
  result.reference_nll = std::log(reference_sum) + reference_max - static_cast<double>(reference[t]);
  // Rounding may leave a divergence of equal distributions a hair below zero.
  result.kld = std::max(0.0, cross / reference_sum + std::log(sum) - std::log(reference_sum));
  result.agreed = best == reference_best;
  return result;
}

Comparison compare(const ExecContext& ctx, model::Transformer& model, model::Transformer& reference,
                   std::span<const text::Sample> samples, const CompareOptions& options) {
  const std::int64_t vocab = model.arch().vocab_size;
  if (vocab != reference.arch().vocab_size)
    throw BadRecipe("the reference gives {} logits, the model {}: only models of one vocabulary can be compared",
                    reference.arch().vocab_size, vocab);
  check_lengths(samples, model.arch());
  check_lengths(samples, reference.arch());
  const std::int64_t held_rows =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(options.logits_bytes / sizeof(float)) / vocab);
  Progress progress(options.progress, static_cast<std::int64_t>(samples.size()));
  Comparison comparison;
  std::vector<float> held;
  std::int64_t tokens_seen = 0;
  for (const auto& [begin, end] : batch_ranges(samples, options.tokens_per_pass, held_rows)) {
    if (interrupted()) throw Interrupted("{}: interrupted after {} of {} samples", options.progress, begin, samples.size());
    const ModelBatch batch(text::batch_of(samples.subspan(begin, end - begin)));
    std::vector<std::int32_t> rows;
    for (std::size_t t = 0; t < batch.batch().targets.size(); ++t)
      if (batch.batch().targets[t] >= 0) rows.push_back(static_cast<std::int32_t>(t));
    std::vector<TokenComparison> tokens(rows.size());
    // One pass, but for a single sample with more labelled tokens than may be held.
    for (std::size_t first = 0; first < rows.size(); first += static_cast<std::size_t>(held_rows)) {
      const std::size_t n = std::min(rows.size() - first, static_cast<std::size_t>(held_rows));
      compare_rows(ctx, model, reference, batch.view(), std::span<const std::int32_t>(rows).subspan(first, n), held,
                   std::span(tokens).subspan(first, n));
    }
    add_rows(batch.batch(), samples.subspan(begin, end - begin), tokens, comparison);
    tokens_seen += static_cast<std::int64_t>(batch.batch().tokens.size());
    progress.update(static_cast<std::int64_t>(end), {.tokens = tokens_seen, .loss = std::nullopt});
  }
  estimate(comparison, options.bootstrap);
  return comparison;
}

void require_same_vocabulary(const Vocabulary& model, const Vocabulary& reference) {
  const text::Tokenizer &a = *model.tokenizer, &b = *reference.tokenizer;
  const std::string names = fmt::format("{} and the reference {}", model.model, reference.model);
  if (model.logits != reference.logits)
    throw BadRecipe("{} have different vocabularies: {} and {} logits; only models of one vocabulary can be compared", names,
                    model.logits, reference.logits);
  // Ids beyond the smaller tokenizer are padding that some formats name and others leave out.
  const std::int32_t n = std::min(a.vocab_size(), b.vocab_size());
  for (std::int32_t id = 0; id < n; ++id) {
    const std::string &x = a.token_text(id), &y = b.token_text(id);
    if (x != y && !x.empty() && !y.empty())
      throw BadRecipe(
          "{} have different vocabularies: id {} is \"{}\" and \"{}\"; only models of one vocabulary can be compared", names,
          id, x, y);
  }
}

void require_same_vocabulary(const LoadedModel& model, const LoadedModel& reference) {
  const auto of = [](const LoadedModel& m) { return Vocabulary{m.path().string(), m.arch().vocab_size, &m.tokenizer()}; };
  require_same_vocabulary(of(model), of(reference));
}

Estimate recovered(const Comparison& ptq, const Comparison& qat, const BootstrapOptions& options) {
  const auto same = [](const RowComparison& a, const RowComparison& b) { return a.row == b.row && a.tokens == b.tokens; };
  if (!std::ranges::equal(ptq.rows, qat.rows, same))
    throw LogicError("recovered: the models were compared on different rows");
  return bootstrap_recovered(column(ptq, &RowComparison::reference_nll), column(ptq, &RowComparison::nll),
                             column(qat, &RowComparison::nll), options);
}

}  // namespace temper::eval
