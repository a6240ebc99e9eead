#include "eval/score.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"

namespace temper::eval {
namespace {

std::int64_t labelled_tokens(const text::Sample& sample) {
  return std::ranges::count_if(sample.labelled, [](std::uint8_t l) { return l != 0; });
}

}  // namespace

ModelBatch::ModelBatch(text::Batch batch) : batch_(std::move(batch)) {
  spans_.reserve(batch_.segments.size());
  for (const text::Segment& s : batch_.segments) spans_.push_back({s.begin, s.end, s.begin, s.end});
}

std::vector<std::pair<std::size_t, std::size_t>> batch_ranges(std::span<const text::Sample> samples, std::int64_t max_tokens,
                                                              std::int64_t max_labelled) {
  std::vector<std::pair<std::size_t, std::size_t>> ranges;
  std::int64_t tokens = 0, labelled = 0;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const std::int64_t sample_tokens = static_cast<std::int64_t>(samples[i].ids.size());
    const std::int64_t sample_labelled = labelled_tokens(samples[i]);
    if (ranges.empty() || tokens + sample_tokens > max_tokens || labelled + sample_labelled > max_labelled) {
      ranges.emplace_back(i, i);
      tokens = labelled = 0;
    }
    ranges.back().second = i + 1;
    tokens += sample_tokens;
    labelled += sample_labelled;
  }
  return ranges;
}

void check_lengths(std::span<const text::Sample> samples, const model::ArchSpec& arch) {
  for (const text::Sample& sample : samples) {
    // The last token is only predicted, never read.
    const std::int64_t read = static_cast<std::int64_t>(sample.ids.size()) - 1;
    if (arch.max_positions > 0 && read > arch.max_positions)
      throw BadData("row {}: {} tokens, but the model has {} positions; cut the rows (data.seq_len, eval.context)",
                    sample.row, read + 1, arch.max_positions);
  }
}

std::vector<RowScore> score_samples(const ExecContext& ctx, model::Transformer& transformer,
                                    std::span<const text::Sample> samples, const ScoreOptions& options) {
  check_lengths(samples, transformer.arch());
  Progress progress(options.progress, static_cast<std::int64_t>(samples.size()));
  std::vector<RowScore> scores;
  scores.reserve(samples.size());
  std::int64_t tokens_seen = 0;
  const auto ranges = batch_ranges(samples, options.tokens_per_pass, options.tokens_per_pass);
  for (const auto& [begin, end] : ranges) {
    if (interrupted()) throw Interrupted("{}: interrupted after {} of {} samples", options.progress, begin, samples.size());
    const ModelBatch batch(text::batch_of(samples.subspan(begin, end - begin)));
    const std::vector<float> nll = batch.batch().labelled > 0 ? transformer.nll(ctx, batch.view()) : std::vector<float>();
    std::size_t next = 0;
    for (std::size_t s = 0; s < batch.batch().segments.size(); ++s) {
      RowScore score{samples[begin + s].row, 0.0, 0};
      const text::Segment& segment = batch.batch().segments[s];
      for (std::int32_t t = segment.begin; t < segment.end; ++t) {
        if (batch.batch().targets[static_cast<std::size_t>(t)] < 0) continue;
        score.nll += static_cast<double>(nll[next++]);
        ++score.tokens;
      }
      scores.push_back(score);
    }
    tokens_seen += static_cast<std::int64_t>(batch.batch().tokens.size());
    progress.update(static_cast<std::int64_t>(end), {.tokens = tokens_seen, .loss = std::nullopt});
  }
  return scores;
}

Score summarize(std::span<const RowScore> samples, const BootstrapOptions& options) {
  Score score;
  for (const RowScore& sample : samples) {
    if (!std::isfinite(sample.nll)) throw Diverged("row {}: the NLL is not finite ({})", sample.row, sample.nll);
    if (sample.tokens == 0) continue;
    if (score.rows.empty() || score.rows.back().row != sample.row) score.rows.push_back({sample.row, 0.0, 0});
    score.rows.back().nll += sample.nll;
    score.rows.back().tokens += sample.tokens;
    score.tokens += sample.tokens;
  }
  if (score.rows.empty()) throw BadData("no labelled tokens to score");
  std::vector<double> nll, tokens;
  for (const RowScore& row : score.rows) {
    nll.push_back(row.nll);
    tokens.push_back(static_cast<double>(row.tokens));
  }
  score.nll = bootstrap_ratio(nll, tokens, options);
  return score;
}

Score score(const ExecContext& ctx, model::Transformer& transformer, std::span<const text::Sample> samples,
            const ScoreOptions& options) {
  return summarize(score_samples(ctx, transformer, samples, options), options.bootstrap);
}

}  // namespace temper::eval
