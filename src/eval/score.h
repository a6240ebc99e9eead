// Negative log-likelihood (NLL) of labelled tokens: the figure from which answer NLL, perplexity and multiple choice are
// made.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "eval/statistics.h"
#include "model/transformer.h"
#include "text/dataset.h"
#include "text/packing.h"

namespace temper::eval {

/// How many tokens go through the model at once, as documents side by side that do not see each other. A longer sample goes
/// alone.
inline constexpr std::int64_t kTokensPerPass = 2048;

/// A batch together with the attention spans that the model wants: one per segment.
class ModelBatch {
 public:
  explicit ModelBatch(text::Batch batch);
  /// Valid as long as this lives and is not moved.
  model::BatchView view() const { return {batch_.tokens, batch_.positions, batch_.targets, spans_}; }
  const text::Batch& batch() const { return batch_; }

 private:
  text::Batch batch_;
  std::vector<ops::AttentionSpan> spans_;
};

/// Cuts samples, in order, into ranges [begin, end) of at most `max_tokens` tokens and `max_labelled` labelled tokens each
/// (but at least one sample).
std::vector<std::pair<std::size_t, std::size_t>> batch_ranges(std::span<const text::Sample> samples, std::int64_t max_tokens,
                                                              std::int64_t max_labelled);

/// Σ NLL (nats) over the labelled tokens of one sample, or of all samples of one row.
struct RowScore {
  std::int64_t row = 0;  ///< Sample::row: the line of the file.
  double nll = 0;
  std::int64_t tokens = 0;
};

struct ScoreOptions {
  BootstrapOptions bootstrap;
  std::int64_t tokens_per_pass = kTokensPerPass;
  std::string progress = "evaluate";  ///< Name of the piece of work.
};

struct Score {
  std::vector<RowScore> rows;  ///< One per row of the file: samples of one row are added up.
  std::int64_t tokens = 0;     ///< Labelled.
  Estimate nll;                ///< Nats per labelled token; rows drawn again.
};

/// Throws BadData if a sample needs more positions than the model has.
void check_lengths(std::span<const text::Sample> samples, const model::ArchSpec& arch);

/// One score per sample, in order. Throws BadData if a sample has more tokens than the model has positions, Interrupted on
/// Ctrl-C.
std::vector<RowScore> score_samples(const ExecContext& ctx, model::Transformer& transformer,
                                    std::span<const text::Sample> samples, const ScoreOptions& options = {});

/// NLL per labelled token of a data set, with its interval. Throws BadData where nothing is labelled.
Score score(const ExecContext& ctx, model::Transformer& transformer, std::span<const text::Sample> samples,
            const ScoreOptions& options = {});
/// The same from scores of samples at hand.
Score summarize(std::span<const RowScore> samples, const BootstrapOptions& options);

}  // namespace temper::eval
