#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace temper::eval {
namespace {

/// The window over ids [begin, end] (inclusive: the last is only predicted), scoring ids (scored, end].
text::Sample window(std::span<const std::int32_t> ids, std::int64_t begin, std::int64_t end, std::int64_t scored,
                    std::int64_t row) {
  text::Sample sample;
  sample.row = row;
  for (std::int64_t i = begin; i <= end; ++i) {
    sample.ids.push_back(ids[static_cast<std::size_t>(i)]);
    sample.labelled.push_back(i > scored ? 1 : 0);
  }
  return sample;
}

void cut_stride(std::span<const std::int32_t> ids, const WindowOptions& options, TextWindows& out) {
  const std::int64_t n = static_cast<std::int64_t>(ids.size());
  if (n < 2) throw BadData("the text has {} tokens; perplexity needs at least one token to predict", out.text_tokens);
  std::int64_t scored = 0;
  for (std::int64_t begin = 0; scored < n - 1; begin += out.stride) {
    const std::int64_t count = static_cast<std::int64_t>(out.samples.size());
    if (options.max_windows > 0 && count == options.max_windows) break;
    const std::int64_t end = std::min(begin + out.context, n - 1);
    out.samples.push_back(window(ids, begin, end, scored, count + 1));
    scored = end;
  }
  out.scored_tokens = scored;
}

void cut_llama(std::span<const std::int32_t> ids, std::optional<std::int32_t> bos, const WindowOptions& options,
               TextWindows& out) {
  std::int64_t chunks = static_cast<std::int64_t>(ids.size()) / out.context;
  if (chunks == 0)
    throw BadData("the text has {} tokens, fewer than one window of {}; use a longer text or a smaller eval.context",
                  ids.size(), out.context);
  if (options.max_windows > 0) chunks = std::min(chunks, options.max_windows);
  for (std::int64_t c = 0; c < chunks; ++c) {
    const std::int64_t begin = c * out.context;
    out.samples.push_back(window(ids, begin, begin + out.context - 1, begin + out.context / 2, c + 1));
    if (bos) out.samples.back().ids[0] = *bos;
  }
  out.scored_tokens = chunks * (out.context - 1 - out.context / 2);
}

}  // namespace

TextWindows cut_windows(std::span<const std::int32_t> ids, std::optional<std::int32_t> bos, const WindowOptions& options) {
  TextWindows out;
  out.windows = options.windows;
  out.text_tokens = static_cast<std::int64_t>(ids.size());
  out.context = options.context;
  out.bos = bos.has_value();
  const bool llama = options.windows == recipe::Windows::LlamaPerplexity;
  out.stride = llama                ? options.context
               : options.stride > 0 ? options.stride
                                    : std::max<std::int64_t>(1, options.context / 2);
  const std::int64_t least = llama ? 3 : 2;
  if (options.context < least)
    throw BadRecipe("eval.context: expected at least {} tokens, found {}", least, options.context);
  if (options.stride < 0 || out.stride > out.context)
    throw BadRecipe("eval.stride: expected 0 to {} (eval.context), found {}; a longer one would leave tokens out",
                    out.context, options.stride);
  std::vector<std::int32_t> stream;
  if (bos) stream.push_back(*bos);
  stream.insert(stream.end(), ids.begin(), ids.end());
  if (llama) {
    cut_llama(stream, bos, options, out);
  } else {
    cut_stride(stream, options, out);
  }
  out.count = static_cast<std::int64_t>(out.samples.size());
  return out;
}

TextWindows cut_windows(std::string_view text, const text::Tokenizer& tokenizer, const WindowOptions& options) {
  if (options.windows == recipe::Windows::LlamaPerplexity && text.ends_with('\n')) text.remove_suffix(1);
  const std::vector<std::int32_t> ids = tokenizer.encode(text, false);
  return cut_windows(ids, tokenizer.adds_bos() ? tokenizer.bos_id() : std::nullopt, options);
}

std::string TextWindows::how() const {
  if (windows == recipe::Windows::LlamaPerplexity)
    return fmt::format(
        "as llama-perplexity counts: {} windows of {} tokens side by side, those after position {} scored ({} of "
        "{} tokens), {}",
        count, context, context / 2, scored_tokens, text_tokens,
        bos ? "BOS in place of each window's first token" : "no BOS");
  return fmt::format("{} windows of {} tokens, stride {}, each token scored once ({} of {} tokens), {}", count, context,
                     stride, scored_tokens, text_tokens, bos ? "BOS before the text" : "no BOS, the first token not scored");
}

Estimate perplexity_of(const Estimate& nll) { return {std::exp(nll.value), std::exp(nll.low), std::exp(nll.high)}; }

}  // namespace temper::eval
