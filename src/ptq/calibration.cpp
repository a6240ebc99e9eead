#include "ptq/calibration.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/rng.h"
#include "eval/evaluate.h"
#include "eval/perplexity.h"

namespace temper::ptq {
namespace {

constexpr std::uint64_t kChoiceStream = 0x63616c6962;  // "calib"

bool is_rows(const std::string& path) { return path.ends_with(".jsonl") || path.ends_with(".json"); }

std::vector<text::Sample> windows_of(const std::string& path, std::int64_t context, std::int64_t max_windows,
                                     const text::Tokenizer& tokenizer) {
  eval::WindowOptions options;
  options.windows = recipe::Windows::LlamaPerplexity;
  options.context = context;
  options.max_windows = max_windows;
  return eval::cut_windows(read_file(path), tokenizer, options).samples;
}

std::vector<text::Sample> read(const recipe::CalibrationOptions& options, recipe::DataOptions data,
                               const text::Tokenizer& tokenizer) {
  if (is_rows(options.path)) {
    data.seq_len = options.context;
    return eval::load_rows(options.path, data, tokenizer, 0).samples;
  }
  return windows_of(options.path, options.context, 0, tokenizer);
}

/// Samples chosen until `tokens` are reached, in their own order.
std::vector<text::Sample> choose(std::vector<text::Sample> samples, std::int64_t tokens, std::uint64_t seed) {
  std::vector<std::size_t> order(samples.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  Rng rng(seed, kChoiceStream);
  shuffle(order, rng);
  std::int64_t sum = 0;
  std::size_t count = 0;
  while (count < order.size() && sum < tokens) sum += static_cast<std::int64_t>(samples[order[count++]].ids.size());
  order.resize(count);
  std::ranges::sort(order);
  std::vector<text::Sample> chosen;
  for (const std::size_t i : order) chosen.push_back(std::move(samples[i]));
  return chosen;
}

}  // namespace

std::vector<text::Sample> calibration_samples(const recipe::CalibrationOptions& options, const recipe::DataOptions& data,
                                              const text::Tokenizer& tokenizer) {
  std::vector<text::Sample> samples = read(options, data, tokenizer);
  if (options.tokens > 0) samples = choose(std::move(samples), options.tokens, static_cast<std::uint64_t>(options.seed));
  return samples;
}

Calibration batched(std::span<const text::Sample> samples, const std::string& source) {
  if (samples.empty()) throw BadData("{}: no calibration data in it", source);
  Calibration calibration;
  calibration.source = source;
  calibration.sequences = static_cast<std::int64_t>(samples.size());
  for (const auto& [begin, end] :
       eval::batch_ranges(samples, eval::kTokensPerPass, std::numeric_limits<std::int64_t>::max())) {
    const auto batch = text::batch_of(samples.subspan(begin, end - begin));
    calibration.tokens += static_cast<std::int64_t>(batch.tokens.size());
    calibration.batches.emplace_back(batch);
  }
  return calibration;
}

Calibration load_calibration(const recipe::CalibrationOptions& options, const recipe::DataOptions& data,
                             const text::Tokenizer& tokenizer) {
  return batched(calibration_samples(options, data, tokenizer), options.path);
}

Calibration load_text(const std::string& path, std::int64_t context, std::int64_t max_windows,
                      const text::Tokenizer& tokenizer) {
  return batched(windows_of(path, context, max_windows, tokenizer), path);
}

}  // namespace temper::ptq
